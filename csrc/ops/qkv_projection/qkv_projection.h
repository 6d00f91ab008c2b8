// qkv_projection: qkv [T, 3, N, D] = x [T, H] * W^T + b, W [3·N·D, H] in one tensor or three, then queries and keys
// turned by each token's angles. The products are common/gemm's; here is the turning where no product can do it on the
// way out.
#pragma once

#include <cstdint>

#include "common/portable.h"
#if defined(SENTCORE_WITH_CUDA) || defined(__CUDACC__)
#include "common/device.cuh"
#endif

namespace sentcore {

// out = in with queries and keys of every token turned by its angles, backwards by `inverse`; values are copied. In
// place is fine. The pairs are columns d and D/2 + d (half-split, GPT-NeoX).
struct Rotation {
  std::int64_t tokens;  // T
  std::int64_t heads;   // N
  std::int64_t size;    // D, even
  Dtype dtype;
  const void* in;   // [T, 3, N, D] dtype
  void* out;        // [T, 3, N, D] dtype
  const void* cos;  // [T, D/2] float32 | dtype
  const void* sin;  // [T, D/2] likewise
  bool angles_are_float32;
  bool inverse;
};

#if defined(SENTCORE_WITH_CUDA) || defined(__CUDACC__)
cudaError_t rotate_cuda(const Rotation& args, cudaStream_t stream);
#endif

}  // namespace sentcore
