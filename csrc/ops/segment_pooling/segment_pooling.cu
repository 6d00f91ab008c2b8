// Kernels of segment_pooling; segment_pooling.h says what each tensor is.
//
// A block takes a sentence and 32 * N columns, each lane N of them; warp w of kWarps takes the tokens w, w + kWarps,
// ... of the sentence, and the warps' results meet in shared memory in the order of the warps. So a long sentence alone
// keeps many warps busy, and its bits depend on nothing but itself.

#include <limits>
#include <type_traits>

#include "common/dispatch.cuh"
#include "common/reduce.cuh"
#include "ops/segment_pooling/segment_pooling.h"

namespace sentcore {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = kWarps * kWarpSize;
constexpr float kLeastNorm = 1e-12f;
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// The tokens of a sentence that count, and what their rows are multiplied by.
struct Segment {
  int first, begin, end;  // begin: without those left out
  PoolingMode mode;

  __device__ __forceinline__ Segment(const SegmentPooling& args, std::int64_t sentence)
      : first(args.cu_seqlens[sentence]), end(args.cu_seqlens[sentence + 1]), mode(args.mode) {
    begin = args.skip < end - first ? first + static_cast<int>(args.skip) : end;
  }
  // The tokens that the sum goes over.
  __device__ __forceinline__ int sum_begin() const {
    return mode == PoolingMode::lasttoken && end > begin ? end - 1 : begin;
  }
  __device__ __forceinline__ int sum_end() const { return mode == PoolingMode::cls && end > begin ? begin + 1 : end; }
  __device__ __forceinline__ float factor() const {  // of the sum
    const float count = static_cast<float>(end - begin);
    switch (mode) {
      case PoolingMode::mean:
        return 1.0f / count;
      case PoolingMode::mean_sqrt_len_tokens:
        return __frsqrt_rn(count);
      case PoolingMode::weightedmean:  // the sum of the places begin - first + 1 to end - first
        return 2.0f / (count * (static_cast<float>(begin - first) + static_cast<float>(end - first) + 1.0f));
      default:
        return 1.0f;
    }
  }
  __device__ __forceinline__ float weight(int token) const {  // of a row in the sum
    return mode == PoolingMode::weightedmean ? static_cast<float>(token - first + 1) : 1.0f;
  }
};

template <int N, typename T>
__device__ __forceinline__ void load_row(const SegmentPooling& args, int token, std::int64_t column,
                                         float (&values)[N]) {
  load_as_float<Access::streamed>(static_cast<const T*>(args.x) + token * args.hidden + column, values);
}

// NaN is larger than anything.
__device__ __forceinline__ bool is_larger(float value, float than) {
  return value > than || (value != value && than == than);
}

// ---- forward ----

// Grid: B sentences, columns / (32 * N). Four blocks a multiprocessor are asked for: left to itself ptxas aims at eight
// on sm_100, and spills.
template <typename T, int N>
__global__ void __launch_bounds__(kThreads, 4) forward(const SegmentPooling args) {
  constexpr int kColumns = kWarpSize * N;
  static_assert(kColumns <= kThreads, "a thread a column adds the warps' sums");
  SENTCORE_SHARED(float, partial, [kWarps][kColumns]);
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize, warp = static_cast<int>(threadIdx.x) / kWarpSize;
  const Segment segment(args, blockIdx.x);
  const bool max = segment.mode == PoolingMode::max;
  const std::int64_t first_column = static_cast<std::int64_t>(blockIdx.y) * kColumns, column = first_column + lane * N;
  float pooled[N];
#pragma unroll
  for (int i = 0; i < N; ++i) pooled[i] = max ? -kInfinity : 0.0f;
  if (column < args.hidden) {
    const int end = segment.sum_end();
#pragma unroll 4
    for (int token = segment.sum_begin() + warp; token < end; token += kWarps) {
      float values[N];
      load_row<N, T>(args, token, column, values);
      const float weight = segment.weight(token);
#pragma unroll
      for (int i = 0; i < N; ++i) {
        if (max) {
          pooled[i] = is_larger(values[i], pooled[i]) ? values[i] : pooled[i];
        } else {
          pooled[i] += values[i] * weight;
        }
      }
    }
  }
#pragma unroll
  for (int i = 0; i < N; ++i) partial[warp][lane * N + i] = pooled[i];
  __syncthreads();  // the warps' sums are written
  const int c = static_cast<int>(threadIdx.x);
  if (c >= kColumns || first_column + c >= args.hidden) return;
  float value = partial[0][c];
#pragma unroll
  for (int w = 1; w < kWarps; ++w) {
    if (max) {
      value = is_larger(partial[w][c], value) ? partial[w][c] : value;
    } else {
      value += partial[w][c];
    }
  }
  const bool any = segment.begin < segment.end;
  static_cast<float*>(args.out)[static_cast<std::int64_t>(blockIdx.x) * args.hidden + first_column + c] =
      any ? value * segment.factor() : 0.0f;
}

// A block a sentence: its row of out is scaled to length 1.
__global__ void __launch_bounds__(kThreads) normalize(const SegmentPooling args) {
  float* const out = static_cast<float*>(args.out) + static_cast<std::int64_t>(blockIdx.x) * args.hidden;
  float squares[1] = {0.0f};
  for (std::int64_t column = threadIdx.x; column < args.hidden; column += kThreads) {
    squares[0] += out[column] * out[column];
  }
  block_sum(squares);
  const float norm = sqrtf(squares[0]);
  if (threadIdx.x == 0) static_cast<float*>(args.norm)[blockIdx.x] = norm;
  for (std::int64_t column = threadIdx.x; column < args.hidden; column += kThreads) {
    out[column] /= norm > kLeastNorm ? norm : kLeastNorm;
  }
}

// ---- backward ----

// Of each of a lane's columns the first token that has the largest value. All threads of the block call this; an empty
// segment has none, -1.
template <int N, typename T>
__device__ __forceinline__ void find_largest(const SegmentPooling& args, const Segment& segment, std::int64_t column,
                                             int lane, int warp, int (&where)[N]) {
  constexpr int kColumns = kWarpSize * N;
  SENTCORE_SHARED(float, largest, [kWarps][kColumns]);
  SENTCORE_SHARED(int, places, [kWarps][kColumns]);
  float best[N];
#pragma unroll
  for (int i = 0; i < N; ++i) {
    best[i] = -kInfinity;
    where[i] = -1;
  }
  if (column < args.hidden) {
    for (int token = segment.begin + warp; token < segment.end; token += kWarps) {
      float values[N];
      load_row<N, T>(args, token, column, values);
#pragma unroll
      for (int i = 0; i < N; ++i) {
        if (where[i] >= 0 && !is_larger(values[i], best[i])) continue;
        best[i] = values[i];
        where[i] = token;
      }
    }
  }
#pragma unroll
  for (int i = 0; i < N; ++i) {
    largest[warp][lane * N + i] = best[i];
    places[warp][lane * N + i] = where[i];
  }
  __syncthreads();  // what each warp has found is written
  const int c = static_cast<int>(threadIdx.x);
  if (c < kColumns) {
    float value = largest[0][c];
    int place = places[0][c];
    for (int w = 1; w < kWarps; ++w) {
      if (places[w][c] < 0) break;  // the later warps have no token either
      const bool as_large = !is_larger(value, largest[w][c]) && places[w][c] < place;
      if (!is_larger(largest[w][c], value) && !as_large) continue;
      value = largest[w][c];
      place = places[w][c];
    }
    places[0][c] = place;  // this thread alone reads the column
  }
  __syncthreads();  // what all warps have found is written
#pragma unroll
  for (int i = 0; i < N; ++i) where[i] = places[0][lane * N + i];
}

// Grid: as above. Each block of a sentence finds the sum over all its columns that normalizing needs.
template <typename T, int N>
__global__ void __launch_bounds__(kThreads, 4) backward(const SegmentPoolingBackward args) {
  const SegmentPooling& given = args.given;
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize, warp = static_cast<int>(threadIdx.x) / kWarpSize;
  const std::int64_t sentence = blockIdx.x, column = (static_cast<std::int64_t>(blockIdx.y) * kWarpSize + lane) * N;
  const Segment segment(given, sentence);
  const bool max = segment.mode == PoolingMode::max;
  const float* const grad_out = static_cast<const float*>(args.grad_out) + sentence * given.hidden;
  const float* const out = static_cast<const float*>(given.out) + sentence * given.hidden;
  float along[1] = {0.0f}, scale = 1.0f;
  if (given.normalize) {
    const float norm = static_cast<const float*>(given.norm)[sentence];
    for (std::int64_t c = threadIdx.x; c < given.hidden; c += kThreads) along[0] += grad_out[c] * out[c];
    block_sum(along);
    if (!(norm > kLeastNorm)) along[0] = 0.0f;
    scale = 1.0f / (norm > kLeastNorm ? norm : kLeastNorm);
  }
  int where[N];
  if (max) find_largest<N, T>(given, segment, column, lane, warp, where);
  if (column >= given.hidden) return;

  float grad[N];
  load_as_float<Access::reused>(grad_out + column, grad);
  if (given.normalize) {
    float unit[N];
    load_as_float<Access::reused>(out + column, unit);
#pragma unroll
    for (int i = 0; i < N; ++i) grad[i] = (grad[i] - unit[i] * along[0]) * scale;
  }
  const int from = segment.sum_begin(), to = segment.sum_end();
  const float factor = from < to ? segment.factor() : 0.0f;
  for (int token = segment.first + warp; token < segment.end; token += kWarps) {
    const bool counts = token >= from && token < to;
    const float weight = segment.weight(token);
    float values[N];
#pragma unroll
    for (int i = 0; i < N; ++i) {
      values[i] = counts && (!max || where[i] == token) ? grad[i] * factor * weight : 0.0f;
    }
    store_from_float<Access::reused>(static_cast<T*>(args.grad_x) + token * given.hidden + column, values);
  }
}

// ---- which of them ----

// run(TypeOf<T>, columns of a lane).
template <typename Run>
cudaError_t for_columns(const SegmentPooling& args, bool packs, const Run& run) {
  return for_dtypes(args.dtype, args.dtype, [&](auto element, auto) {
    constexpr int N = kPackSize<typename decltype(element)::type>;
    return packs && args.hidden % N == 0 ? run(element, std::integral_constant<int, N>{})
                                         : run(element, std::integral_constant<int, 1>{});
  });
}

LaunchShape shape_of(const SegmentPooling& args, int columns_of_lane) {
  return {dim3(static_cast<unsigned>(args.sentences),
               static_cast<unsigned>(ceil_div<std::int64_t>(args.hidden, kWarpSize * columns_of_lane))),
          dim3(kThreads)};
}

}  // namespace

cudaError_t segment_pooling_cuda(const SegmentPooling& args, cudaStream_t stream) {
  const cudaError_t status = for_columns(args, packs_fit({args.x}), [&](auto element, auto n) {
    using T = typename decltype(element)::type;
    return launch(forward<T, decltype(n)::value>, shape_of(args, decltype(n)::value), stream, args);
  });
  if (status != cudaSuccess || !args.normalize) return status;
  return launch(normalize, {dim3(static_cast<unsigned>(args.sentences)), dim3(kThreads)}, stream, args);
}

cudaError_t segment_pooling_backward_cuda(const SegmentPoolingBackward& args, cudaStream_t stream) {
  const bool packs = packs_fit({args.given.x, args.given.out, args.grad_out, args.grad_x});
  return for_columns(args.given, packs, [&](auto element, auto n) {
    using T = typename decltype(element)::type;
    return launch(backward<T, decltype(n)::value>, shape_of(args.given, decltype(n)::value), stream, args);
  });
}

}  // namespace sentcore
