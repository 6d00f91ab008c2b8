// LayerNorm of rows that a warp has put into shared memory as floats, for ops that compute the row they normalize.
#pragma once

#include "common/dispatch.cuh"
#include "common/reduce.cuh"

namespace sentcore {

// Warps of a block, each with a row of `hidden` floats; the rooms refuse rows of which not one fits.
inline int warps_for_rows(std::int64_t hidden) {
  int warps = 4;
  constexpr std::int64_t kMostBytes = 96 << 10;  // of shared memory, on the GPU with the least of it
  while (warps > 1 && warps * hidden * static_cast<std::int64_t>(sizeof(float)) > kMostBytes) warps /= 2;
  return warps;
}
inline LaunchShape shape_for_rows(std::int64_t rows, std::int64_t hidden) {
  const int warps = warps_for_rows(hidden);
  return {dim3(static_cast<unsigned>(ceil_div<std::int64_t>(rows, warps))),
          dim3(static_cast<unsigned>(warps * kWarpSize)),
          static_cast<std::size_t>(warps) * static_cast<std::size_t>(hidden) * sizeof(float)};
}

struct RowStats {
  float mean;
  float rstd;  // 1 / sqrt(biased variance + eps)
};

// Lane l has written, and alone reads, the columns c with c / N % 32 == l. All lanes of the warp call this.
template <int N>
__device__ __forceinline__ RowStats stats_of_row(const float* row, std::int64_t hidden, float eps, int lane) {
  const float count = static_cast<float>(hidden);
  float sum = 0.0f;
  for (std::int64_t c = lane * N; c < hidden; c += kWarpSize * N) {
#pragma unroll
    for (int i = 0; i < N; ++i) sum += row[c + i];
  }
  const float mean = warp_sum(sum) / count;
  float squares = 0.0f;
  for (std::int64_t c = lane * N; c < hidden; c += kWarpSize * N) {
#pragma unroll
    for (int i = 0; i < N; ++i) squares += (row[c + i] - mean) * (row[c + i] - mean);
  }
  return {mean, rsqrtf(warp_sum(squares) / count + eps)};
}

// out [H] T = (row - mean) * rstd * weight + norm_bias, with weight and norm_bias [H] W, norm_bias or null.
template <int N, typename T, typename W>
__device__ __forceinline__ void store_normalized(const float* row, const RowStats& stats, std::int64_t hidden,
                                                 const W* weight, const W* norm_bias, T* out, int lane) {
  for (std::int64_t c = lane * N; c < hidden; c += kWarpSize * N) {
    float scale[N], shift[N] = {}, values[N];
    load_as_float<Access::reused>(weight + c, scale);
    if (norm_bias != nullptr) load_as_float<Access::reused>(norm_bias + c, shift);
#pragma unroll
    for (int i = 0; i < N; ++i) values[i] = (row[c + i] - stats.mean) * stats.rstd * scale[i] + shift[i];
    store_from_float<Access::reused>(out + c, values);
  }
}

}  // namespace sentcore
