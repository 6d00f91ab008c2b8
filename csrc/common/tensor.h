// torch's stable ABI as the op rooms use it: one name for a tensor, outputs, and the element type of kernels.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <initializer_list>
#include <limits>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "common/portable.h"

namespace sentcore {

using Tensor = torch::stable::Tensor;
using torch::headeronly::ScalarType;

// float32, float64, bfloat16 or float16 only: check_dtype comes before.
inline Dtype dtype_of(const Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case ScalarType::Float:
      return Dtype::float32;
    case ScalarType::Double:
      return Dtype::float64;
    case ScalarType::BFloat16:
      return Dtype::bfloat16;
    case ScalarType::Half:
      return Dtype::float16;
    default:
      STD_TORCH_CHECK(false, "no kernel element type for this tensor; this is a bug in sentcore");
  }
}

// What sums over elements of `tensor` are kept in.
inline ScalarType sum_dtype(const Tensor& tensor) {
  return tensor.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

// What `make` gives, a tensor of so many elements on `like`'s device. An allocator's own error is lost behind the
// stable ABI, which says that a call failed and not why; sizes have been checked, so memory it is. These are the words
// of torch's allocators, which callers look for to try again with less.
template <typename Make>
Tensor allocated(const Tensor& like, std::int64_t elements, const Make& make) {
  try {
    return make();
  } catch (const std::exception&) {
    const bool cpu = like.is_cpu();
    const char* const words = cpu ? "DefaultCPUAllocator: can't allocate memory" : "CUDA out of memory";
    // An earlier kernel's failure comes back from every later call of CUDA, and so from the allocator too.
    const char* const else_it_was =
        cpu ? ""
            : ". With memory to spare it is a failure of an earlier kernel: set CUDA_LAUNCH_BLOCKING=1 to see which";
    throw std::runtime_error(words + (" for " + std::to_string(elements)) +
                             " elements of a tensor. Compute fewer tokens at once, e.g. with a lower batch_tokens" +
                             else_it_was);
  }
}

// A new tensor on `like`'s device, not initialized: the kernel writes every element. In the emulation it is full of
// NaN, or of 85 where there is none, so that an element no thread wrote is seen.
inline Tensor new_output(const Tensor& like, std::initializer_list<std::int64_t> sizes, ScalarType dtype) {
  std::int64_t elements = 1;
  for (const std::int64_t size : sizes) elements *= size;
  Tensor output =
      allocated(like, elements, [&] { return torch::stable::new_empty(like, {sizes.begin(), sizes.size()}, dtype); });
#ifdef SENTCORE_EMULATE
  const bool is_whole = dtype == ScalarType::Char || dtype == ScalarType::Byte || dtype == ScalarType::Bool;
  torch::stable::fill_(output, is_whole ? 85.0 : std::numeric_limits<double>::quiet_NaN());
#endif
  return output;
}

inline Tensor copy_of(const Tensor& tensor) {
  return allocated(tensor, tensor.numel(), [&] { return torch::stable::clone(tensor); });
}

inline Tensor as_contiguous(const Tensor& tensor) {
  if (tensor.is_contiguous()) return tensor;
  return allocated(tensor, tensor.numel(), [&] { return torch::stable::contiguous(tensor); });
}

inline std::optional<Tensor> as_contiguous(const std::optional<Tensor>& tensor) {
  if (!tensor) return std::nullopt;
  return as_contiguous(*tensor);
}

// Contiguous, and aligned to the 16 bytes that kernels read at a time.
inline Tensor as_packs(const Tensor& tensor) {
  const Tensor whole = as_contiguous(tensor);
  const bool aligned = reinterpret_cast<std::uintptr_t>(whole.const_data_ptr()) % 16 == 0;
  return aligned ? whole : copy_of(whole);
}

// The data of a tensor, or null where the tensor is absent.
inline const void* data_of(const std::optional<Tensor>& tensor) { return tensor ? tensor->const_data_ptr() : nullptr; }

}  // namespace sentcore
