// Tensors as operands of a product; for the .cpp files of the rooms that are built on gemm_cuda.
#pragma once

#include <string>

#include "common/checks.h"
#include "common/gemm/gemm.h"
#include "common/tensor.h"

namespace sentcore {

inline StackedRows rows_of(const Tensor& tensor) {  // [rows, width], contiguous
  return {{tensor.const_data_ptr(), nullptr, nullptr}, tensor.sizes()[0], tensor.sizes()[1]};
}

// int32 indexes rows, columns and depth of a product, and tiles are counted in the grid's first dimension.
inline void check_sizes(const Checks& check, const char* name, const Tensor& tensor) {
  constexpr std::int64_t kMost = std::numeric_limits<std::int32_t>::max() / 4;
  for (const std::int64_t size : tensor.sizes()) {
    if (size > kMost) {
      check.fail(std::string(name) + " has shape " + shape_text(tensor.sizes()) + "; accepted: at most " +
                 std::to_string(kMost) + " in a dimension on CUDA. Split the batch");
    }
  }
}

// The activation behind a product, by the name that the ops take.
inline Activation activation_of(const Checks& check, const std::string& name) {
  if (name == "none") return Activation::none;
  if (name == "relu") return Activation::relu;
  if (name == "gelu") return Activation::gelu;
  if (name == "gelu_tanh") return Activation::gelu_tanh;
  if (name == "geglu") return Activation::geglu;
  if (name == "swiglu") return Activation::swiglu;
  check.fail("activation is '" + name + "'; accepted: none, relu, gelu, gelu_tanh, geglu, swiglu. Apply it outside");
}

}  // namespace sentcore
