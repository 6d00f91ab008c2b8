// How long a row common/row_norm.cuh takes, for the checks of the rooms that use it.
#pragma once

#include <string>

#include "common/checks.h"

namespace sentcore {

constexpr std::int64_t kMostRowBytes = 96 << 10;  // of shared memory, on the GPU with the least of it
constexpr std::int64_t kMostRowHidden = kMostRowBytes / 4;

inline void check_row_hidden(const Checks& check, const char* name, const Tensor& tensor) {
  const std::int64_t hidden = tensor.sizes()[1];
  if (hidden >= 1 && hidden <= kMostRowHidden) return;
  check.fail(std::string(name) + " has shape " + shape_text(tensor.sizes()) + "; accepted: a last dimension of 1 to " +
             std::to_string(kMostRowHidden) + " on CUDA. Use the plain backend for more");
}

}  // namespace sentcore
