// Kernels of segment_pooling; segment_pooling.h says what each tensor is, segment.cuh how a sentence is shared out.

#include <type_traits>

#include "common/dispatch.cuh"
#include "ops/segment_pooling/segment.cuh"

namespace sentcore {
namespace {

// ---- forward ----

// Grid: B sentences, columns / (32 * N). Four blocks a multiprocessor are asked for: left to itself ptxas aims at eight
// on sm_100, and spills.
template <typename T, int N>
__global__ void __launch_bounds__(kThreads, 4) forward(const SegmentPooling args) {
  constexpr int kColumns = kWarpSize * N;
  const Segment segment(args, blockIdx.x);
  const std::int64_t first_column = static_cast<std::int64_t>(blockIdx.y) * kColumns;
  const float value = pool_columns<T, N>(args, segment, first_column);
  const int c = static_cast<int>(threadIdx.x);
  if (c >= kColumns || first_column + c >= args.hidden) return;
  static_cast<float*>(args.out)[static_cast<std::int64_t>(blockIdx.x) * args.hidden + first_column + c] = value;
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
  for (std::int64_t column = threadIdx.x; column < args.hidden; column += kThreads) out[column] /= divisor_of(norm);
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
    scale = 1.0f / divisor_of(norm);
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
