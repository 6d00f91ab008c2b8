// common/ptx_fp8.cuh for the emulation: the same functions, with the same contracts.
#pragma once

#include "common/e4m3.h"
#include "emulation/ptx.h"

namespace sentcore::ptx {

inline std::uint32_t pack_pair_e4m3(float low, float high) {
  return e4m3_from_float(low).bits | static_cast<std::uint32_t>(e4m3_from_float(high).bits) << 8;
}

namespace emulated {

inline void multiply_e4m3_matrices(const void* const* in, void* const* out, unsigned) {
  float a[16][32], b[32][8];
  for (int lane = 0; lane < emulation::kWarpSize; ++lane) {
    const auto* fragments = static_cast<const Fragments*>(in[lane]);
    const int g = lane / 4, t = 4 * (lane % 4);
    for (int i = 0; i < 4; ++i) {
      const auto element = [i](std::uint32_t word) {
        return float_from_e4m3({static_cast<std::uint8_t>(word >> (8 * i))});
      };
      for (int r = 0; r < 4; ++r) a[g + 8 * (r % 2)][t + 16 * (r / 2) + i] = element(fragments->a[r]);
      for (int r = 0; r < 2; ++r) b[t + 16 * r + i][g] = element(fragments->b[r]);
    }
  }
  for (int lane = 0; lane < emulation::kWarpSize; ++lane) {
    auto* d = static_cast<float*>(out[lane]);
    const int g = lane / 4, t = 2 * (lane % 4);
    for (int r = 0; r < 4; ++r) {
      float sum = d[r];
      for (int k = 0; k < 32; ++k) sum += a[g + 8 * (r / 2)][k] * b[k][t + r % 2];
      d[r] = sum;
    }
  }
}

}  // namespace emulated

inline void multiply_accumulate_16x8x32_e4m3(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2]) {
  const emulated::Fragments fragments{a, b};
  emulation::meet_warp({"multiply_accumulate_16x8x32_e4m3", __FILE__, __LINE__}, 0xffffffffu, &fragments, d,
                       &emulated::multiply_e4m3_matrices);
}

}  // namespace sentcore::ptx
