// bias_gelu_layer_norm: out = LayerNorm(gelu(x + bias)) * weight + norm_bias, x [T, H], gelu in its erf form; every
// tensor is contiguous. Arithmetic is float32 (float64 when dtype is float64). Pointers marked "or null" leave their
// term out.
#pragma once

#include <cstdint>

#include "common/portable.h"
#if defined(SENTCORE_WITH_CUDA) || defined(__CUDACC__)
#include "common/device.cuh"
#endif

namespace sentcore {

struct BiasGeluLayerNormForward {
  std::int64_t rows;    // T
  std::int64_t hidden;  // H
  Dtype dtype;
  Dtype weight_dtype;  // dtype, or float32
  double eps;
  const void* x;          // [T, H] dtype
  const void* bias;       // [H] weight_dtype, or null
  const void* weight;     // [H] weight_dtype
  const void* norm_bias;  // [H] weight_dtype, or null
  void* out;              // [T, H] dtype
};

// Every output is overwritten; the sums over T have a fixed order.
struct BiasGeluLayerNormBackward {
  std::int64_t rows;    // T
  std::int64_t hidden;  // H
  std::int64_t groups;  // G, of bias_gelu_layer_norm_groups_*(T)
  Dtype dtype;
  Dtype weight_dtype;
  double eps;
  const void* grad_out;  // [T, H] dtype
  const void* x;         // [T, H] dtype
  const void* bias;      // [H] weight_dtype, or null
  const void* weight;    // [H] weight_dtype
  void* grad_x;          // [T, H] dtype
  void* grad_bias;       // [H] weight_dtype, or null
  void* grad_weight;     // [H] weight_dtype
  void* grad_norm_bias;  // [H] weight_dtype, or null
  float* stats;          // [T, 4] float32, scratch on CUDA: mean, rstd, and the means of the two sums over a row
  void* partial;         // [3, G, H] float32 (float64), scratch: for grad_bias, grad_weight, grad_norm_bias
};

void bias_gelu_layer_norm_forward_cpu(const BiasGeluLayerNormForward& args);
void bias_gelu_layer_norm_backward_cpu(const BiasGeluLayerNormBackward& args);
std::int64_t bias_gelu_layer_norm_groups_cpu(std::int64_t rows);

#if defined(SENTCORE_WITH_CUDA) || defined(__CUDACC__)
cudaError_t bias_gelu_layer_norm_forward_cuda(const BiasGeluLayerNormForward& args, cudaStream_t stream);
cudaError_t bias_gelu_layer_norm_backward_cuda(const BiasGeluLayerNormBackward& args, cudaStream_t stream);
std::int64_t bias_gelu_layer_norm_groups_cuda(std::int64_t rows);
#endif

}  // namespace sentcore
