// What a function needs so that one definition serves the CUDA kernels, the emulated kernels and the CPU kernels.
#pragma once

#include <cstdint>
#include <cstring>

#ifdef __CUDACC__
#define SENTCORE_HD __host__ __device__ __forceinline__
#elif defined(__GNUC__)
// Always inlined: a CPU kernel is compiled for several instruction sets, and a call would fall back to the oldest.
#define SENTCORE_HD inline __attribute__((always_inline))
#else
#define SENTCORE_HD inline
#endif

namespace sentcore {

// The element types a kernel may be asked for, in a form that needs neither torch's headers nor CUDA's.
enum class Dtype : std::int32_t { float32, float64, bfloat16, float16 };

template <typename To, typename From>
SENTCORE_HD To bits_as(From value) {
  static_assert(sizeof(To) == sizeof(From), "bits_as keeps every bit");
  To result;
  std::memcpy(&result, &value, sizeof(To));
  return result;
}

template <typename Integer>
SENTCORE_HD constexpr Integer ceil_div(Integer a, Integer b) {
  return (a + b - 1) / b;
}

}  // namespace sentcore
