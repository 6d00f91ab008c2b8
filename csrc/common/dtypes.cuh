// Element types of kernels, their conversion to and from float, and 16-byte packs of them.
#pragma once

#include <cstdint>
#include <type_traits>

#include "common/device.cuh"

namespace sentcore {

__device__ __forceinline__ float to_float(float value) { return value; }
__device__ __forceinline__ float to_float(__nv_bfloat16 value) { return __bfloat162float(value); }
__device__ __forceinline__ float to_float(__half value) { return __half2float(value); }

// from_float<T>(x): x rounded to T, to nearest, ties to even.
template <typename T>
__device__ __forceinline__ T from_float(float value);
template <>
__device__ __forceinline__ float from_float<float>(float value) {
  return value;
}
template <>
__device__ __forceinline__ __nv_bfloat16 from_float<__nv_bfloat16>(float value) {
  return __float2bfloat16_rn(value);
}
template <>
__device__ __forceinline__ __half from_float<__half>(float value) {
  return __float2half_rn(value);
}

// Elements in 16 bytes.
template <typename T>
constexpr int kPackSize = 16 / static_cast<int>(sizeof(T));

// How a value will be used again decides what the caches keep of it.
enum class Access {
  reused,    // soon, by this kernel or the next one
  streamed,  // not before it has left the caches anyway
};

// N elements as they lie in memory. N = 1 asks nothing of their address; N > 1 asks for 16 bytes' alignment, and that
// they are whole packs. Loading into this first, and converting later, lets several loads be under way at a time.
template <typename T, int N>
struct Elements {
  static_assert(N == 1 || N % kPackSize<T> == 0, "one element, or whole packs");
  union {
    uint4 pack[N == 1 ? 1 : N / kPackSize<T>];
    T element[N];
  };
};

// The memory at p must not change while the kernel runs.
template <Access access, int N, typename T>
__device__ __forceinline__ Elements<T, N> load(const T* p) {
  Elements<T, N> loaded;
  if constexpr (N == 1) {
    loaded.element[0] = *p;
  } else {
#pragma unroll
    for (int i = 0; i < N / kPackSize<T>; ++i) {
      const uint4* source = reinterpret_cast<const uint4*>(p) + i;
      loaded.pack[i] = access == Access::streamed ? ptx::load_streaming(source) : ptx::load(source);
    }
  }
  return loaded;
}

// Streamed, and zeros where it is not `wanted`: nothing is read there, and there is no branch for other loads to wait
// at.
template <int N, typename T>
__device__ __forceinline__ Elements<T, N> load_if(bool wanted, const T* p) {
  Elements<T, N> loaded{};
  if constexpr (N == 1) {
    if (wanted) loaded.element[0] = *p;
  } else {
#pragma unroll
    for (int i = 0; i < N / kPackSize<T>; ++i) {
      loaded.pack[i] = ptx::load_streaming_if(wanted, reinterpret_cast<const uint4*>(p) + i);
    }
  }
  return loaded;
}

template <int N, typename T>
__device__ __forceinline__ void convert(const Elements<T, N>& loaded, float (&values)[N]) {
  if constexpr (N > 1 && std::is_same_v<T, __nv_bfloat16>) {
    // Word by word: taken as elements, every other one would be shifted down before it is shifted up again.
#pragma unroll
    for (int i = 0; i < N / 8; ++i) {
      const std::uint32_t words[4] = {loaded.pack[i].x, loaded.pack[i].y, loaded.pack[i].z, loaded.pack[i].w};
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        values[8 * i + 2 * j] = bits_as<float>(words[j] << 16);
        values[8 * i + 2 * j + 1] = bits_as<float>(words[j] & 0xffff0000u);
      }
    }
  } else {
#pragma unroll
    for (int i = 0; i < N; ++i) values[i] = to_float(loaded.element[i]);
  }
}

template <Access access, int N, typename T>
__device__ __forceinline__ void load_as_float(const T* p, float (&values)[N]) {
  convert(load<access, N>(p), values);
}

// N floats, rounded to T, to p; of p as above.
template <Access access, int N, typename T>
__device__ __forceinline__ void store_from_float(T* p, const float (&values)[N]) {
  Elements<T, N> rounded;
#pragma unroll
  for (int i = 0; i < N; ++i) rounded.element[i] = from_float<T>(values[i]);
  if constexpr (N == 1) {
    *p = rounded.element[0];
  } else {
#pragma unroll
    for (int i = 0; i < N / kPackSize<T>; ++i) {
      uint4* target = reinterpret_cast<uint4*>(p) + i;
      if (access == Access::streamed) {
        ptx::store_streaming(target, rounded.pack[i]);
      } else {
        ptx::store_global(target, rounded.pack[i]);
      }
    }
  }
}

}  // namespace sentcore
