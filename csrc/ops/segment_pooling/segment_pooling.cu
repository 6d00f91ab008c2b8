// Kernels of segment_pooling; segment_pooling.h says what each tensor is. A block a sentence, a thread a column at a
// time.

#include "common/dispatch.cuh"
#include "common/reduce.cuh"
#include "ops/segment_pooling/segment_pooling.h"

namespace sentcore {
namespace {

constexpr int kThreads = 256;
constexpr float kLeastNorm = 1e-12f;

// The tokens of a sentence that count, and what their rows are multiplied by.
struct Segment {
  std::int64_t first, begin, end;  // begin: without those left out
  PoolingMode mode;

  __device__ __forceinline__ Segment(const SegmentPooling& args, std::int64_t sentence)
      : first(args.cu_seqlens[sentence]), end(args.cu_seqlens[sentence + 1]), mode(args.mode) {
    begin = first + args.skip < end ? first + args.skip : end;
  }
  // The tokens that the sum goes over.
  __device__ __forceinline__ std::int64_t sum_begin() const {
    return mode == PoolingMode::lasttoken && end > begin ? end - 1 : begin;
  }
  __device__ __forceinline__ std::int64_t sum_end() const {
    return mode == PoolingMode::cls && end > begin ? begin + 1 : end;
  }
  __device__ __forceinline__ float factor() const {  // of the sum
    const float count = static_cast<float>(end - begin), whole = static_cast<float>(end - first);
    const float left_out = static_cast<float>(begin - first);
    switch (mode) {
      case PoolingMode::mean:
        return 1.0f / count;
      case PoolingMode::mean_sqrt_len_tokens:
        return rsqrtf(count);
      case PoolingMode::weightedmean:
        return 1.0f / (whole * (whole + 1.0f) * 0.5f - left_out * (left_out + 1.0f) * 0.5f);
      default:
        return 1.0f;
    }
  }
  __device__ __forceinline__ float weight(std::int64_t token) const {  // of a row in the sum
    return mode == PoolingMode::weightedmean ? static_cast<float>(token - first + 1) : 1.0f;
  }
};

template <typename T>
__device__ __forceinline__ float value_at(const SegmentPooling& args, std::int64_t token, std::int64_t column) {
  return to_float(static_cast<const T*>(args.x)[token * args.hidden + column]);
}

// The largest value of a column and the first token that has it; NaN is larger than anything.
template <typename T>
__device__ __forceinline__ float largest(const SegmentPooling& args, const Segment& segment, std::int64_t column,
                                         std::int64_t& where) {
  float best = value_at<T>(args, segment.begin, column);
  where = segment.begin;
  for (std::int64_t token = segment.begin + 1; token < segment.end; ++token) {
    const float value = value_at<T>(args, token, column);
    if (value > best || (value != value && best == best)) {
      best = value;
      where = token;
    }
  }
  return best;
}

template <typename T>
__device__ __forceinline__ float pooled(const SegmentPooling& args, const Segment& segment, std::int64_t column) {
  if (segment.begin >= segment.end) return 0.0f;
  if (segment.mode == PoolingMode::max) {
    std::int64_t where;
    return largest<T>(args, segment, column, where);
  }
  float sum = 0.0f;
#pragma unroll 4
  for (std::int64_t token = segment.sum_begin(); token < segment.sum_end(); ++token) {
    sum += value_at<T>(args, token, column) * segment.weight(token);
  }
  return sum * segment.factor();
}

template <typename T>
__global__ void __launch_bounds__(kThreads) forward(const SegmentPooling args) {
  const std::int64_t sentence = blockIdx.x;
  const Segment segment(args, sentence);
  float* const out = args.out + sentence * args.hidden;
  float squares[1] = {0.0f};
  for (std::int64_t column = threadIdx.x; column < args.hidden; column += kThreads) {
    const float value = pooled<T>(args, segment, column);
    out[column] = value;
    squares[0] += value * value;
  }
  if (!args.normalize) return;  // the whole block
  block_sum(squares);
  const float norm = sqrtf(squares[0]);
  if (threadIdx.x == 0) args.norm[sentence] = norm;
  for (std::int64_t column = threadIdx.x; column < args.hidden; column += kThreads) {
    out[column] /= norm > kLeastNorm ? norm : kLeastNorm;  // this thread's own values
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads) backward(const SegmentPoolingBackward args) {
  const SegmentPooling& given = args.given;
  const std::int64_t sentence = blockIdx.x;
  const Segment segment(given, sentence);
  const float* const grad_out = args.grad_out + sentence * given.hidden;
  const float* const out = given.out + sentence * given.hidden;
  T* const grad_x = static_cast<T*>(args.grad_x);
  float along[1] = {0.0f}, scale = 1.0f;
  if (given.normalize) {
    const float norm = given.norm[sentence];
    for (std::int64_t column = threadIdx.x; column < given.hidden; column += kThreads) {
      along[0] += grad_out[column] * out[column];
    }
    block_sum(along);
    if (!(norm > kLeastNorm)) along[0] = 0.0f;
    scale = 1.0f / (norm > kLeastNorm ? norm : kLeastNorm);
  }
  for (std::int64_t column = threadIdx.x; column < given.hidden; column += kThreads) {
    float grad = grad_out[column];
    if (given.normalize) grad = (grad - out[column] * along[0]) * scale;
    std::int64_t from = segment.sum_begin(), to = segment.sum_end();
    if (segment.mode == PoolingMode::max && segment.begin < segment.end) {
      largest<T>(given, segment, column, from);
      to = from + 1;
    }
    const float factor = from < to ? segment.factor() : 0.0f;
    for (std::int64_t token = segment.first; token < segment.end; ++token) {
      const bool counts = token >= from && token < to;
      grad_x[token * given.hidden + column] = from_float<T>(counts ? grad * factor * segment.weight(token) : 0.0f);
    }
  }
}

}  // namespace

cudaError_t segment_pooling_cuda(const SegmentPooling& args, cudaStream_t stream) {
  return for_dtypes(args.dtype, args.dtype, [&](auto element, auto) {
    const LaunchShape shape{dim3(static_cast<unsigned>(args.sentences)), dim3(kThreads)};
    return launch(forward<typename decltype(element)::type>, shape, stream, args);
  });
}

cudaError_t segment_pooling_backward_cuda(const SegmentPoolingBackward& args, cudaStream_t stream) {
  return for_dtypes(args.given.dtype, args.given.dtype, [&](auto element, auto) {
    const LaunchShape shape{dim3(static_cast<unsigned>(args.given.sentences)), dim3(kThreads)};
    return launch(backward<typename decltype(element)::type>, shape, stream, args);
  });
}

}  // namespace sentcore
