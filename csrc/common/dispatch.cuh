// What the launches of row-wise kernels choose by: dtypes and alignment.
#pragma once

#include <cstdint>
#include <initializer_list>

#include "common/dtypes.cuh"

namespace sentcore {

// Whether 16-byte packs fit every pointer. Null is no tensor, and fits.
inline bool packs_fit(std::initializer_list<const void*> pointers) {
  for (const void* pointer : pointers) {
    if (reinterpret_cast<std::uintptr_t>(pointer) % 16 != 0) return false;
  }
  return true;
}

template <typename T>
struct TypeOf {
  using type = T;
};

// Calls run(TypeOf<T>, TypeOf<W>) for the dtype of [T, H] and of [H]; float64 has no CUDA kernel.
template <typename Run>
cudaError_t for_dtypes(Dtype dtype, Dtype weight_dtype, const Run& run) {
  const bool same = weight_dtype == dtype;
  if (!same && weight_dtype != Dtype::float32) return cudaErrorInvalidValue;
  switch (dtype) {
    case Dtype::float32:
      return run(TypeOf<float>{}, TypeOf<float>{});
    case Dtype::bfloat16:
      return same ? run(TypeOf<__nv_bfloat16>{}, TypeOf<__nv_bfloat16>{})
                  : run(TypeOf<__nv_bfloat16>{}, TypeOf<float>{});
    case Dtype::float16:
      return same ? run(TypeOf<__half>{}, TypeOf<__half>{}) : run(TypeOf<__half>{}, TypeOf<float>{});
    case Dtype::float64:
      break;
  }
  return cudaErrorInvalidValue;
}

}  // namespace sentcore
