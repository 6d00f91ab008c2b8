// add_layer_norm: total = residual + dropout(x + x_bias); out = LayerNorm(total) * weight + norm_bias.
//
// T rows (tokens) of H columns (hidden); both free, T may be 0. Every tensor is contiguous, and outputs overlap
// nothing. `dtype` is the type of x and of everything [T, H]; `weight_dtype` that of everything [H]: the same, or
// float32 beside a half-precision dtype. Arithmetic and `stat` are float32 (float64 when dtype is float64). Pointers
// marked "or null" leave their term out.
#pragma once

#include <cstdint>

#include "common/portable.h"
#if defined(SENTCORE_WITH_CUDA) || defined(__CUDACC__)
#include "common/device.cuh"
#endif

namespace sentcore {

// total is rounded to dtype before it is normalized: the backward sees no other one, and out is the same with and
// without saving. Nothing is accumulated into; total, mean and rstd are written only when all three are there, for the
// backward.
struct AddLayerNormForward {
  std::int64_t rows;    // T
  std::int64_t hidden;  // H
  Dtype dtype;
  Dtype weight_dtype;
  double dropout_p;  // in [0, 1); above 0 needs seed
  double eps;
  const void* x;             // [T, H] dtype
  const void* residual;      // [T, H] dtype, or null
  const void* weight;        // [H] weight_dtype
  const void* norm_bias;     // [H] weight_dtype, or null
  const void* x_bias;        // [H] weight_dtype, or null
  const std::int64_t* seed;  // [2] int64 (seed, offset), or null; read on the device
  void* out;                 // [T, H] dtype
  void* total;               // [T, H] dtype, or null
  void* mean;                // [T] stat, or null: over H, of total as rounded to dtype
  void* rstd;                // [T] stat, or null: 1 / sqrt(biased variance + eps)
};

// Every output is overwritten. The sums over T have a fixed order, so they repeat bit for bit: group g of `groups` sums
// the rows it owns into its slice of `partial`, and the slices are then added in order.
struct AddLayerNormBackward {
  std::int64_t rows;    // T
  std::int64_t hidden;  // H
  std::int64_t groups;  // G, of add_layer_norm_groups_*(T)
  Dtype dtype;
  Dtype weight_dtype;
  double dropout_p;          // in [0, 1); above 0 needs seed and grad_x
  const void* grad_out;      // [T, H] dtype
  const void* grad_total;    // [T, H] dtype, or null
  const void* total;         // [T, H] dtype, as the forward saved it
  const void* mean;          // [T] stat
  const void* rstd;          // [T] stat
  const void* weight;        // [H] weight_dtype
  const std::int64_t* seed;  // [2] int64, or null; read on the device
  void* grad_x;              // [T, H] dtype, or null: grad_residual where dropout kept the element, scaled
  void* grad_residual;       // [T, H] dtype: the gradient of total
  void* grad_weight;         // [H] weight_dtype
  void* grad_norm_bias;      // [H] weight_dtype, or null
  void* grad_x_bias;         // [H] weight_dtype, or null: the sum over T of grad_x
  void* partial;             // [3, G, H] stat, scratch: sums for grad_weight, grad_norm_bias, grad_x_bias
};

void add_layer_norm_forward_cpu(const AddLayerNormForward& args);
void add_layer_norm_backward_cpu(const AddLayerNormBackward& args);
std::int64_t add_layer_norm_groups_cpu(std::int64_t rows);

#if defined(SENTCORE_WITH_CUDA) || defined(__CUDACC__)
cudaError_t add_layer_norm_forward_cuda(const AddLayerNormForward& args, cudaStream_t stream);
cudaError_t add_layer_norm_backward_cuda(const AddLayerNormBackward& args, cudaStream_t stream);
std::int64_t add_layer_norm_groups_cuda(std::int64_t rows);
#endif

}  // namespace sentcore
