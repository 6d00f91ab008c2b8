// What the kernels of segment_pooling share: the tokens of a sentence that count, and its pooled columns.
//
// A block takes 32 * N columns of a sentence at a time, each lane N of them; warp w of kWarps takes the tokens w,
// w + kWarps, ... of the sentence, and the warps' results meet in shared memory in the order of the warps. So a long
// sentence alone keeps many warps busy, and its bits depend on nothing but itself.
#pragma once

#include <limits>

#include "common/dtypes.cuh"
#include "common/reduce.cuh"
#include "ops/segment_pooling/segment_pooling.h"

namespace sentcore {

constexpr int kWarps = 8;
constexpr int kThreads = kWarps * kWarpSize;
constexpr int kAtOnce = 4;  // rows that a warp reads together
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

// What a row of length `norm` is divided by; NaN stays.
__device__ __forceinline__ float divisor_of(float norm) { return norm < kLeastNorm ? kLeastNorm : norm; }

// Thread c of the block gets the pooled column first_column + c, as far as there is one among 32 * N of x's. All
// threads of the block call this, and meet before they call it again.
template <typename T, int N>
__device__ __forceinline__ float pool_columns(const SegmentPooling& args, const Segment& segment,
                                              std::int64_t first_column) {
  constexpr int kColumns = kWarpSize * N;
  static_assert(kColumns <= kThreads, "a thread a column adds the warps' sums");
  SENTCORE_SHARED(float, partial, [kWarps][kColumns]);
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize, warp = static_cast<int>(threadIdx.x) / kWarpSize;
  const bool max = segment.mode == PoolingMode::max;
  const std::int64_t column = first_column + lane * N;
  float pooled[N];
#pragma unroll
  for (int i = 0; i < N; ++i) pooled[i] = max ? -kInfinity : 0.0f;
  if (column < args.hidden) {
    const int end = segment.sum_end();
    const T* const x = static_cast<const T*>(args.x) + column;
    for (int first = segment.sum_begin() + warp; first < end; first += kAtOnce * kWarps) {
      Elements<T, N> rows[kAtOnce];  // all under way before the first is added
#pragma unroll
      for (int j = 0; j < kAtOnce; ++j) {
        const int token = first + j * kWarps;
        rows[j] = load_if<N>(token < end, x + token * args.hidden);
      }
#pragma unroll
      for (int j = 0; j < kAtOnce; ++j) {
        const int token = first + j * kWarps;
        if (token >= end) continue;
        float values[N];
        convert(rows[j], values);
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
  }
#pragma unroll
  for (int i = 0; i < N; ++i) partial[warp][lane * N + i] = pooled[i];
  __syncthreads();  // the warps' sums are written
  const int c = static_cast<int>(threadIdx.x);
  if (c >= kColumns || first_column + c >= args.hidden || segment.begin == segment.end) return 0.0f;
  float value = partial[0][c];
#pragma unroll
  for (int w = 1; w < kWarps; ++w) {
    if (max) {
      value = is_larger(partial[w][c], value) ? partial[w][c] : value;
    } else {
      value += partial[w][c];
    }
  }
  return value * segment.factor();
}

}  // namespace sentcore
