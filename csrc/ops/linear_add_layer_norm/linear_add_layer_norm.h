// linear_add_layer_norm: LayerNorm(residual + x W^T + b) for inference, in one pass over x and residual. T tokens, K
// inputs, H = 384 outputs, which one block holds whole. On sm_90a alone; elsewhere linear and add_layer_norm do it.
#pragma once

#include <cstdint>

#include "common/portable.h"
#if defined(SENTCORE_WITH_CUDA) || defined(__CUDACC__)
#include "common/device.cuh"

namespace sentcore {

constexpr std::int64_t kNormedWidth = 384;  // of H

// All pointers to x, weight, residual and out are aligned to 16 bytes, the others to 4.
struct LinearAddLayerNorm {
  std::int64_t rows;        // T
  std::int64_t depth;       // K, a multiple of 8
  Dtype dtype;              // bfloat16 or float16, of everything
  const void* x;            // [T, K]
  const void* weight;       // [H, K]
  const void* bias;         // [H], or null
  const void* residual;     // [T, H]
  const void* norm_weight;  // [H]
  const void* norm_bias;    // [H], or null
  float eps;
  void* out;  // [T, H]
};

cudaError_t linear_add_layer_norm_sm90a(const LinearAddLayerNorm& args, cudaStream_t stream);

}  // namespace sentcore
#endif
