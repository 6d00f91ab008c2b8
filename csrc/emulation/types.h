// CUDA's types and qualifiers as plain C++.
#pragma once

#include <cstddef>
#include <cstdint>

#include "common/float_bits.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)

struct float2 {
  float x, y;
};
inline float2 make_float2(float x, float y) { return {x, y}; }
struct uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorInvalidConfiguration = 9 };
using cudaStream_t = struct SentcoreEmulatedStream*;
inline const char* cudaGetErrorString(cudaError_t status) {
  return status == cudaSuccess             ? "no error"
         : status == cudaErrorInvalidValue ? "invalid argument"
                                           : "invalid configuration argument";
}

struct __nv_bfloat16 {
  std::uint16_t bits;
};
struct __half {
  std::uint16_t bits;
};

inline float __bfloat162float(__nv_bfloat16 value) { return sentcore::float_from_bfloat16_bits(value.bits); }
inline __nv_bfloat16 __float2bfloat16_rn(float value) { return {sentcore::bfloat16_bits_from_float(value)}; }
inline float __half2float(__half value) { return sentcore::float_from_float16_bits(value.bits); }
inline __half __float2half_rn(float value) { return {sentcore::float16_bits_from_float(value)}; }
