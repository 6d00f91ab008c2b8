// linear: out = act(x [T, K] * W^T + b), W [R, K]. R is F, or 2F for a gated activation, which gives act(first F) *
// last F. The products are common/gemm's; here is what the backward does between them.
#pragma once

#include <cstdint>

#include "common/portable.h"
#if defined(SENTCORE_WITH_CUDA) || defined(__CUDACC__)
#include "common/activations.cuh"

namespace sentcore {

// grad_pre = grad_out * act'(pre), in the columns of pre. Every output is overwritten.
struct LinearBackward {
  std::int64_t tokens;   // T
  std::int64_t columns;  // R, of pre
  Dtype dtype;
  Activation activation;  // not none: grad_out is grad_pre then
  const void* grad_out;   // [T, F] dtype
  const void* pre;        // [T, R] dtype, as the forward saved it
  void* grad_pre;         // [T, R] dtype
};

cudaError_t linear_backward_cuda(const LinearBackward& args, cudaStream_t stream);

}  // namespace sentcore
#endif
