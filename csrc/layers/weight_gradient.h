// The gradient of a linear layer's weight on a CPU: grad^T x, float32. T tokens, R outputs, K inputs. Sums run over T
// in blocks that T alone decides, so that they are the same on any number of threads.
#pragma once

#include <cstdint>

#include "common/portable.h"

namespace sentcore {

// The weight may be several tensors, one below the other.
struct WeightGradient {
  std::int64_t tokens;   // T, at least 1
  std::int64_t rows;     // R
  std::int64_t columns;  // K
  const float* grad;     // [T, R]
  const float* x;        // [T, K]
  float* out[3];         // each [rows_of_part, K]; null where nobody asks for it
  std::int64_t rows_of_part;
};

void weight_gradient_cpu(const WeightGradient& args);

}  // namespace sentcore
