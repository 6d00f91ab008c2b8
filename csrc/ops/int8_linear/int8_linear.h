// int8_linear: out = act(x W^T + b) for inference, W in 8 bits with a scale per output, x rounded to 8 bits with a
// scale per token. T tokens, K inputs, R outputs. CPU only.
//
//   q = round(x * 127 / max|x|) for each row; out = act(sum(q * w) * max|x| / 127 * scale + bias)
//
// An element of x that is more than kInt8Apart times as large as all others of its row would leave them no steps: it is
// kept as it is, and max|x| is of the others.
//
// The sums are exact integers, so a row's bits depend on nothing but the row.
#pragma once

#include <cstdint>

#include "common/portable.h"

namespace sentcore {

constexpr std::int64_t kInt8Columns = 32;  // outputs of a panel of the packed weight
constexpr std::int64_t kInt8Depth = 4;     // inputs that are multiplied in one instruction

constexpr float kInt8Apart = 3.0f;

enum class Int8Activation { none, relu, gelu, gelu_tanh };

struct Int8Linear {
  std::int64_t rows;     // T, of any number
  std::int64_t depth;    // K, at least 1
  std::int64_t columns;  // R, at least 1
  Dtype dtype;           // float32 or bfloat16
  Int8Activation activation;
  const void* x;               // [T, K] dtype
  const std::uint8_t* weight;  // [R / 32 rounded up, K / 4 rounded up, 32, 4]: w + 128; 128 beyond R and K
  const float* scale;          // [R] float32
  const float* bias;           // [R] float32, or null
  void* out;                   // [T, R] dtype
};

void int8_linear_cpu(const Int8Linear& args);

}  // namespace sentcore
