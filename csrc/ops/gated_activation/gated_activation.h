// gated_activation: out = act(first half of x) * second half, x [T, 2F]; every tensor is contiguous. Arithmetic is
// float32 (float64 when dtype is float64). A row's bits depend on that row alone. For inference on CPUs: on a GPU the
// gate rides on the product before it.
#pragma once

#include <cstdint>

#include "common/portable.h"

namespace sentcore {

struct GatedActivation {
  std::int64_t rows;   // T
  std::int64_t width;  // F
  Dtype dtype;
  bool silu;      // SwiGLU; else GELU by erf, GeGLU
  const void* x;  // [T, 2F] dtype
  void* out;      // [T, F] dtype
};

void gated_activation_cpu(const GatedActivation& args);

}  // namespace sentcore
