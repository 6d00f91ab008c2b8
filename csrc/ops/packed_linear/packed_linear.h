// packed_linear: out = act(x W^T + b) for inference on a CPU, W in the order in which the kernel reads it. T tokens, K
// inputs, R outputs. Sums are float32 and run over K in order, in blocks that
// K alone decides: a row's bits depend on nothing but the row.
#pragma once

#include <cstdint>

#include "common/portable.h"

namespace sentcore {

constexpr std::int64_t kPanelColumns = 32;  // outputs of a panel of the packed weight

enum class PackedActivation { none, relu, gelu, gelu_tanh };

struct PackedLinear {
  std::int64_t rows;     // T, of any number
  std::int64_t depth;    // K, at least 1; even for bfloat16
  std::int64_t columns;  // R, at least 1
  Dtype dtype;           // float32 or bfloat16
  PackedActivation activation;
  const void* x;       // [T, K] dtype
  const void* weight;  // float32: [R / 32 rounded up, K, 32]; bfloat16: [R / 32 rounded up, K / 2, 32, 2]; 0 beyond R
  const void* bias;    // [R] dtype, or null
  void* out;           // [T, R] dtype
};

// A part of the product that one thread computes.
struct PackedLinearTask {
  std::int64_t first_row, last_row;
  std::int64_t first_panel, last_panel;
};

void packed_linear_cpu(const PackedLinear& args);

}  // namespace sentcore
