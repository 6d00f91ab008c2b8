// Sums over a warp and over a block. The order of additions is fixed, so results repeat bit for bit.
#pragma once

#include "common/device.cuh"

namespace sentcore {

constexpr int kWarpSize = 32;
constexpr unsigned kFullMask = 0xffffffffu;

// Every lane gets the sum over the 32 lanes of its warp; all of them must call it.
__device__ __forceinline__ float warp_sum(float value) {
#pragma unroll
  for (int distance = kWarpSize / 2; distance > 0; distance /= 2) {
    value += __shfl_xor_sync(kFullMask, value, distance);
  }
  return value;
}

// Every thread gets the N sums over its block. The block is one-dimensional, whole warps, and all of it must call this.
template <int N>
__device__ __forceinline__ void block_sum(float (&values)[N]) {
  SENTCORE_SHARED(float, partial, [N][kWarpSize]);
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const int warp = static_cast<int>(threadIdx.x) / kWarpSize;
  const int warps = static_cast<int>(blockDim.x) / kWarpSize;
#pragma unroll
  for (int i = 0; i < N; ++i) {
    values[i] = warp_sum(values[i]);
    if (lane == 0) partial[i][warp] = values[i];
  }
  __syncthreads();  // the sums of all warps are written
#pragma unroll
  for (int i = 0; i < N; ++i) values[i] = warp_sum(lane < warps ? partial[i][lane] : 0.0f);
  __syncthreads();  // all warps have read them: the next call may write
}

}  // namespace sentcore
