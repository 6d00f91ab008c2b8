// bias_gelu: out = gelu(x + bias), x [T, F]; every tensor is contiguous. Arithmetic is float32 (float64 when
// dtype is float64). Pointers marked "or null" leave their term out.
#pragma once

#include <cstdint>

#include "common/portable.h"
#if defined(SENTCORE_WITH_CUDA) || defined(__CUDACC__)
#include "common/device.cuh"
#endif

namespace sentcore {

struct BiasGeluForward {
  std::int64_t rows;   // T
  std::int64_t width;  // F
  Dtype dtype;
  Dtype bias_dtype;  // dtype, or float32
  bool tanh;         // the approximation by tanh; else erf
  const void* x;     // [T, F] dtype
  const void* bias;  // [F] bias_dtype, or null
  void* out;         // [T, F] dtype
};

// Every output is overwritten; the sums over T have a fixed order.
struct BiasGeluBackward {
  std::int64_t rows;    // T
  std::int64_t width;   // F
  std::int64_t groups;  // G, of bias_gelu_groups_*(T)
  Dtype dtype;
  Dtype bias_dtype;
  bool tanh;
  const void* grad_out;  // [T, F] dtype
  const void* x;         // [T, F] dtype
  const void* bias;      // [F] bias_dtype, or null
  void* grad_x;          // [T, F] dtype
  void* grad_bias;       // [F] bias_dtype, or null
  void* partial;         // [G, F] float32 (float64), scratch; null without grad_bias
};

void bias_gelu_forward_cpu(const BiasGeluForward& args);
void bias_gelu_backward_cpu(const BiasGeluBackward& args);
std::int64_t bias_gelu_groups_cpu(std::int64_t rows);

#if defined(SENTCORE_WITH_CUDA) || defined(__CUDACC__)

cudaError_t bias_gelu_forward_cuda(const BiasGeluForward& args, cudaStream_t stream);
cudaError_t bias_gelu_backward_cuda(const BiasGeluBackward& args, cudaStream_t stream);
std::int64_t bias_gelu_groups_cuda(std::int64_t rows);
#endif

}  // namespace sentcore
