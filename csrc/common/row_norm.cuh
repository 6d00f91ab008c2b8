// LayerNorm of rows that a kernel computes itself, a warp a row: the row stays in shared memory as floats between the
// passes, or is computed again for each of them where it is longer than that.
#pragma once

#include <type_traits>

#include "common/dispatch.cuh"
#include "common/reduce.cuh"

namespace sentcore {

constexpr int kRowWarps = 4;                      // of a block, at most
constexpr std::int64_t kMostRowBytes = 96 << 10;  // of shared memory, on the GPU with the least of it

// What a row takes of shared memory: whole rounds of 32 lanes with N columns each.
template <int N>
SENTCORE_HD constexpr std::int64_t floats_of_row(std::int64_t hidden) {
  return ceil_div<std::int64_t>(hidden, kWarpSize * N) * kWarpSize * N;
}
template <int N>
SENTCORE_HD constexpr bool row_fits(std::int64_t hidden) {
  return floats_of_row<N>(hidden) * static_cast<std::int64_t>(sizeof(float)) <= kMostRowBytes;
}

template <int N>
LaunchShape shape_for_rows(std::int64_t rows, std::int64_t hidden) {
  const std::int64_t bytes = row_fits<N>(hidden) ? floats_of_row<N>(hidden) * sizeof(float) : 0;
  int warps = kRowWarps;
  while (warps * bytes > kMostRowBytes) warps /= 2;
  return {dim3(static_cast<unsigned>(ceil_div<std::int64_t>(rows, warps))),
          dim3(static_cast<unsigned>(warps * kWarpSize)), static_cast<std::size_t>(warps * bytes)};
}

// run(columns of a lane at a time, whether the row stays in shared memory), both as types: the longest rows are rare
// enough to go without packs.
template <int N, typename Run>
cudaError_t for_row_kind(bool packs, std::int64_t hidden, const Run& run) {
  if (packs && row_fits<N>(hidden)) return run(std::integral_constant<int, N>{}, std::true_type{});
  if (row_fits<1>(hidden)) return run(std::integral_constant<int, 1>{}, std::true_type{});
  return run(std::integral_constant<int, 1>{}, std::false_type{});
}

struct RowStats {
  float mean;
  float rstd;  // 1 / sqrt(biased variance + eps)
};

// The row of a warp: compute(column, values) gives the N floats from a column on, a multiple of N. All lanes call the
// functions below; lane l gets the columns c with c / N % 32 == l.
template <int N, bool kCached, typename Compute>
struct WarpRow {
  float* cache;  // [floats_of_row] in shared memory; unused unless kCached
  std::int64_t hidden;
  int lane;
  const Compute& compute;

  // The first thing to call.
  __device__ __forceinline__ RowStats stats(float eps) const {
    const float count = static_cast<float>(hidden);
    float sum = 0.0f;
    for (std::int64_t c = lane * N; c < hidden; c += kWarpSize * N) {
      float values[N];
      compute(c, values);
#pragma unroll
      for (int i = 0; i < N; ++i) {
        sum += values[i];
        if (kCached) *place_of(c, i) = values[i];
      }
    }
    const float mean = warp_sum(sum) / count;
    float squares = 0.0f;
    each([&](std::int64_t, const float (&values)[N]) {
#pragma unroll
      for (int i = 0; i < N; ++i) squares += (values[i] - mean) * (values[i] - mean);
    });
    return {mean, __frsqrt_rn(warp_sum(squares) / count + eps)};
  }

  // visit(column, values) for all of this lane's columns.
  template <typename Visit>
  __device__ __forceinline__ void each(const Visit& visit) const {
    for (std::int64_t c = lane * N; c < hidden; c += kWarpSize * N) {
      float values[N];
      if (kCached) {
#pragma unroll
        for (int i = 0; i < N; ++i) values[i] = *place_of(c, i);
      } else {
        compute(c, values);
      }
      visit(c, values);
    }
  }

  // A lane alone reads what it has written, so the order is free: neighbouring lanes lie in neighbouring banks.
  __device__ __forceinline__ float* place_of(std::int64_t column, int i) const {
    return cache + (column - lane * N) + i * kWarpSize + lane;
  }
};

// The row of this warp, of a block launched by shape_for_rows; shared is its dynamic shared memory.
template <int N, bool kCached, typename Compute>
__device__ __forceinline__ WarpRow<N, kCached, Compute> row_of_warp(float* shared, std::int64_t hidden,
                                                                    const Compute& compute) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize, warp = static_cast<int>(threadIdx.x) / kWarpSize;
  return {kCached ? shared + warp * floats_of_row<N>(hidden) : nullptr, hidden, lane, compute};
}
// Which row of all that is; beyond the last one there is nothing to do for the whole warp.
__device__ __forceinline__ std::int64_t index_of_row() {
  return static_cast<std::int64_t>(blockIdx.x) * (blockDim.x / kWarpSize) + threadIdx.x / kWarpSize;
}

// N elements of out [H] T = (row - mean) * rstd * weight + norm_bias; weight and norm_bias [H] W, norm_bias or null.
template <int N, typename T, typename W>
__device__ __forceinline__ void store_normalized(const float (&values)[N], const RowStats& stats, std::int64_t column,
                                                 const W* weight, const W* norm_bias, T* out) {
  float scale[N], shift[N] = {}, normalized[N];
  load_as_float<Access::reused>(weight + column, scale);
  if (norm_bias != nullptr) load_as_float<Access::reused>(norm_bias + column, shift);
#pragma unroll
  for (int i = 0; i < N; ++i) normalized[i] = (values[i] - stats.mean) * stats.rstd * scale[i] + shift[i];
  store_from_float<Access::reused>(out + column, normalized);
}

}  // namespace sentcore
