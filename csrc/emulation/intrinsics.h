// The functions CUDA gives to device code, as far as the kernels use them. __FILE__ and __LINE__ are the caller's.
#pragma once

#include <cmath>
#include <cstring>

#include "emulation/runtime.h"

#define SENTCORE_HERE const char *file = __builtin_FILE(), int line = __builtin_LINE()

// ---- meeting ----

inline void __syncthreads(SENTCORE_HERE) { ::sentcore::emulation::meet_block({"__syncthreads", file, line}); }

inline void __syncwarp(unsigned mask = 0xffffffffu, SENTCORE_HERE) {
  ::sentcore::emulation::meet_warp({"__syncwarp", file, line}, mask, nullptr, nullptr,
                                   [](const void* const*, void* const*, unsigned) {});
}

// ---- shuffles ----

namespace sentcore::emulation {

template <typename T>
struct Shuffled {
  T value;
  int source;  // lane to read from; a lane outside the mask gives poison
};

template <typename T>
T shuffle(const char* what, const char* file, int line, unsigned mask, T value, int source) {
  const Shuffled<T> in{value, source};
  T out;
  meet_warp({what, file, line}, mask, &in, &out, [](const void* const* all_in, void* const* all_out, unsigned members) {
    for (int lane = 0; lane < kWarpSize; ++lane) {
      if (!(members >> lane & 1u)) continue;
      const int from = static_cast<const Shuffled<T>*>(all_in[lane])->source;
      if (members >> from & 1u) {
        *static_cast<T*>(all_out[lane]) = static_cast<const Shuffled<T>*>(all_in[from])->value;
      } else {
        std::memset(all_out[lane], kPoison, sizeof(T));
      }
    }
  });
  return out;
}

// The lane `offset` places from this one's segment start, or this one where that is outside the segment.
inline int in_segment(int target, int width) {
  const int lane = current->lane;
  return target >= lane / width * width && target < lane / width * width + width ? target : lane;
}

}  // namespace sentcore::emulation

template <typename T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, SENTCORE_HERE) {
  const int lane = ::sentcore::emulation::current->lane;
  const int from = lane / width * width + ((source % width) + width) % width;
  return ::sentcore::emulation::shuffle("__shfl_sync", file, line, mask, value, from);
}

template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32, SENTCORE_HERE) {
  using namespace ::sentcore::emulation;
  return shuffle("__shfl_xor_sync", file, line, mask, value, in_segment(current->lane ^ bits, width));
}

template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned distance, int width = 32, SENTCORE_HERE) {
  using namespace ::sentcore::emulation;
  return shuffle("__shfl_up_sync", file, line, mask, value,
                 in_segment(current->lane - static_cast<int>(distance), width));
}

template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned distance, int width = 32, SENTCORE_HERE) {
  using namespace ::sentcore::emulation;
  return shuffle("__shfl_down_sync", file, line, mask, value,
                 in_segment(current->lane + static_cast<int>(distance), width));
}

// ---- votes ----

inline unsigned __ballot_sync(unsigned mask, int predicate, SENTCORE_HERE) {
  unsigned out = 0;
  ::sentcore::emulation::meet_warp({"__ballot_sync", file, line}, mask, &predicate, &out,
                                   [](const void* const* in, void* const* all_out, unsigned members) {
                                     unsigned bits = 0;
                                     for (int lane = 0; lane < 32; ++lane) {
                                       if (members >> lane & 1u && *static_cast<const int*>(in[lane]) != 0)
                                         bits |= 1u << lane;
                                     }
                                     for (int lane = 0; lane < 32; ++lane) {
                                       if (members >> lane & 1u) *static_cast<unsigned*>(all_out[lane]) = bits;
                                     }
                                   });
  return out;
}
inline int __any_sync(unsigned mask, int predicate, SENTCORE_HERE) {
  return __ballot_sync(mask, predicate, file, line) != 0;
}
inline int __all_sync(unsigned mask, int predicate, SENTCORE_HERE) {
  return __ballot_sync(mask, predicate, file, line) == mask;
}

// ---- atomics: one thread at a time runs, so being able to lose the turn before is all there is to emulate ----

template <typename T, typename U>
T atomicAdd(T* p, U value) {
  ::sentcore::emulation::pause();
  const T old = *p;
  *p = old + static_cast<T>(value);
  return old;
}
template <typename T, typename U>
T atomicMax(T* p, U value) {
  ::sentcore::emulation::pause();
  const T old = *p;
  if (static_cast<T>(value) > old) *p = static_cast<T>(value);
  return old;
}
template <typename T>
T atomicExch(T* p, T value) {
  ::sentcore::emulation::pause();
  const T old = *p;
  *p = value;
  return old;
}
template <typename T>
T atomicCAS(T* p, T expected, T value) {
  ::sentcore::emulation::pause();
  const T old = *p;
  if (old == expected) *p = value;
  return old;
}
inline void __threadfence() {}
inline void __threadfence_block() {}

// ---- arithmetic ----

inline float __fmul_rn(float a, float b) { return a * b; }
inline float __frsqrt_rn(float x) { return static_cast<float>(1.0 / std::sqrt(static_cast<double>(x))); }
inline float rsqrtf(float x) { return __frsqrt_rn(x); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(static_cast<unsigned>(x)); }
template <typename T>
T __ldg(const T* p) {
  return *p;
}

#undef SENTCORE_HERE
