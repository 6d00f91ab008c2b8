// The activations of feed-forward networks and their derivatives, in float32.
#pragma once

#include <cmath>
#include <cstdint>

#include "common/device.cuh"

namespace sentcore {

// x * Phi(x), Phi the normal distribution's function (Hendrycks and Gimpel 2016).
__device__ __forceinline__ float gelu_erf(float x) { return 0.5f * x * (1.0f + erff(x * 0.70710678118654752f)); }
__device__ __forceinline__ float gelu_erf_grad(float x) {
  const float phi = 0.5f * (1.0f + erff(x * 0.70710678118654752f));
  return phi + x * 0.39894228040143268f * expf(-0.5f * x * x);
}

// The same paper's approximation by tanh.
__device__ __forceinline__ float gelu_tanh(float x) {
  return 0.5f * x * (1.0f + tanhf(0.79788456080286536f * (x + 0.044715f * x * x * x)));
}
__device__ __forceinline__ float gelu_tanh_grad(float x) {
  const float t = tanhf(0.79788456080286536f * (x + 0.044715f * x * x * x));
  const float inner = 0.79788456080286536f * (1.0f + 3.0f * 0.044715f * x * x);
  return 0.5f * (1.0f + t) + 0.5f * x * (1.0f - t * t) * inner;
}

__device__ __forceinline__ float silu(float x) { return x / (1.0f + expf(-x)); }
__device__ __forceinline__ float silu_grad(float x) {
  const float s = 1.0f / (1.0f + expf(-x));
  return s * (1.0f + x * (1.0f - s));
}

// What follows a product; of the gated ones act(first half) * second half is meant.
enum class Activation : std::int32_t { none, relu, gelu, gelu_tanh, geglu, swiglu };

SENTCORE_HD bool is_gated(Activation activation) {
  return activation == Activation::geglu || activation == Activation::swiglu;
}

__device__ __forceinline__ float activate(Activation activation, float x) {
  switch (activation) {
    case Activation::relu:
      return x > 0.0f ? x : (x == x ? 0.0f : x);  // NaN stays
    case Activation::gelu:
    case Activation::geglu:
      return gelu_erf(x);
    case Activation::gelu_tanh:
      return gelu_tanh(x);
    case Activation::swiglu:
      return silu(x);
    default:
      return x;
  }
}

__device__ __forceinline__ float activate_grad(Activation activation, float x) {
  switch (activation) {
    case Activation::relu:
      return x > 0.0f ? 1.0f : 0.0f;
    case Activation::gelu:
    case Activation::geglu:
      return gelu_erf_grad(x);
    case Activation::gelu_tanh:
      return gelu_tanh_grad(x);
    case Activation::swiglu:
      return silu_grad(x);
    default:
      return 1.0f;
  }
}

}  // namespace sentcore
