// common/ptx.cuh for the emulation: the same functions, with the same contracts, checked.
#pragma once

#include <cmath>
#include <cstring>

#include "emulation/copies.h"
#include "emulation/runtime.h"

namespace sentcore::ptx {

namespace emulated {

using emulation::Place;

inline void check_aligned(const void* p, const char* what) {
  if (reinterpret_cast<std::uintptr_t>(p) % 16 != 0) {
    emulation::fail({what, __FILE__, __LINE__}, "the address is not aligned to 16 bytes");
  }
}

inline void check_shared(const void* p, const char* what) {
  check_aligned(p, what);
  if (!emulation::is_shared(p, 16)) {
    emulation::fail({what, __FILE__, __LINE__}, "16 bytes at the address are not all in the block's shared memory");
  }
}

}  // namespace emulated

inline uint4 load(const uint4* p) {
  emulated::check_aligned(p, "16-byte load");
  return *p;
}
inline uint4 load_streaming(const uint4* p) { return load(p); }
inline uint4 load_streaming_if(bool wanted, const uint4* p) { return wanted ? load(p) : uint4{}; }

inline void store(uint4* p, uint4 v) {
  emulated::check_aligned(p, "16-byte store");
  *p = v;
}
inline void store_global(uint4* p, uint4 v) {
  if (emulation::is_shared(p, 1)) {
    emulation::fail({"16-byte store", __FILE__, __LINE__}, "it is one to global memory, and the address is shared");
  }
  store(p, v);
}
inline void store_streaming(uint4* p, uint4 v) { store(p, v); }

// The target holds poison from here to the wait: neither the old nor the new bytes may be relied on.
inline void copy_async_16(void* shared, const void* global, bool fill = false) {
  emulated::check_shared(shared, "copy_async_16");
  if (!fill) emulated::check_aligned(global, "copy_async_16");
  std::memset(shared, emulation::kPoison, 16);
  emulation::current->copies->open.push_back({shared, global, fill});
}

inline void copy_async_commit() {
  emulation::PendingCopies& copies = *emulation::current->copies;
  copies.groups.push_back(std::move(copies.open));
  copies.open.clear();
}

template <int pending>
inline void copy_async_wait() {
  emulation::PendingCopies& copies = *emulation::current->copies;
  while (static_cast<int>(copies.groups.size()) > pending) {
    for (const auto& copy : copies.groups.front()) {
      if (copy.fill) {
        std::memset(copy.shared, 0, 16);
      } else {
        std::memcpy(copy.shared, copy.global, 16);
      }
    }
    copies.groups.pop_front();
  }
}

namespace emulated {

// The addresses of 32 rows -> the registers of 32 lanes.
template <bool transposed>
inline void load_matrices(const void* const* in, void* const* out, unsigned) {
  for (int lane = 0; lane < emulation::kWarpSize; ++lane) {
    auto* registers = static_cast<std::uint32_t*>(out[lane]);
    for (int m = 0; m < 4; ++m) {
      const auto element = [&](int row, int column) {
        const auto* address = *static_cast<const std::uint16_t* const*>(in[8 * m + row]);
        return static_cast<std::uint32_t>(address[column]);
      };
      const int major = lane / 4, minor = 2 * (lane % 4);
      registers[m] = transposed ? element(minor, major) | element(minor + 1, major) << 16
                                : element(major, minor) | element(major, minor + 1) << 16;
    }
  }
}

struct Fragments {
  const std::uint32_t* a;
  const std::uint32_t* b;
};

inline float as_float(std::uint32_t pair, int which, const __nv_bfloat16*) {
  return float_from_bfloat16_bits(static_cast<std::uint16_t>(pair >> (16 * which)));
}
inline float as_float(std::uint32_t pair, int which, const __half*) {
  return float_from_float16_bits(static_cast<std::uint16_t>(pair >> (16 * which)));
}

template <typename T>
inline void multiply_matrices(const void* const* in, void* const* out, unsigned) {
  float a[16][16], b[16][8];
  for (int lane = 0; lane < emulation::kWarpSize; ++lane) {
    const auto* fragments = static_cast<const Fragments*>(in[lane]);
    const int g = lane / 4, t = 2 * (lane % 4);
    for (int which = 0; which < 2; ++which) {
      for (int r = 0; r < 4; ++r) {
        a[g + 8 * (r % 2)][t + 8 * (r / 2) + which] = as_float(fragments->a[r], which, static_cast<T*>(nullptr));
      }
      for (int r = 0; r < 2; ++r) b[t + 8 * r + which][g] = as_float(fragments->b[r], which, static_cast<T*>(nullptr));
    }
  }
  for (int lane = 0; lane < emulation::kWarpSize; ++lane) {
    auto* d = static_cast<float*>(out[lane]);
    const int g = lane / 4, t = 2 * (lane % 4);
    for (int r = 0; r < 4; ++r) {
      float sum = d[r];
      for (int k = 0; k < 16; ++k) sum += a[g + 8 * (r / 2)][k] * b[k][t + r % 2];
      d[r] = sum;
    }
  }
}

}  // namespace emulated

inline void load_matrix_x4(std::uint32_t (&registers)[4], const void* shared_row) {
  emulated::check_shared(shared_row, "load_matrix_x4");
  emulation::meet_warp({"load_matrix_x4", __FILE__, __LINE__}, 0xffffffffu, &shared_row, registers,
                       &emulated::load_matrices<false>);
}

inline void load_matrix_x4_transposed(std::uint32_t (&registers)[4], const void* shared_row) {
  emulated::check_shared(shared_row, "load_matrix_x4_transposed");
  emulation::meet_warp({"load_matrix_x4_transposed", __FILE__, __LINE__}, 0xffffffffu, &shared_row, registers,
                       &emulated::load_matrices<true>);
}

template <typename T>
inline void multiply_accumulate_16x8x16(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2]) {
  const emulated::Fragments fragments{a, b};
  emulation::meet_warp({"multiply_accumulate_16x8x16", __FILE__, __LINE__}, 0xffffffffu, &fragments, d,
                       &emulated::multiply_matrices<T>);
}

inline float exp2_approximate(float x) { return std::exp2(x); }

template <typename T>
inline std::uint32_t pack_pair(float low, float high);
template <>
inline std::uint32_t pack_pair<__nv_bfloat16>(float low, float high) {
  return __float2bfloat16_rn(low).bits | static_cast<std::uint32_t>(__float2bfloat16_rn(high).bits) << 16;
}
template <>
inline std::uint32_t pack_pair<__half>(float low, float high) {
  return __float2half_rn(low).bits | static_cast<std::uint32_t>(__float2half_rn(high).bits) << 16;
}

}  // namespace sentcore::ptx
