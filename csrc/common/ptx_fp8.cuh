// The instructions on 8-bit floating-point numbers, as ptx.cuh has the others; emulation/ptx_fp8.h gives each one again
// for the CPU. They need sm_89: only files that are compiled for it alone (fp8_*.cu) may call them.
#pragma once

#include <cstdint>

namespace sentcore::ptx {

// Two floats, rounded to the nearest e4m3, ties to even, as the bytes of a 16-bit word. Beyond 448 they become 448.
__device__ __forceinline__ std::uint32_t pack_pair_e4m3(float low, float high) {
  std::uint16_t pair;
  asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(pair) : "f"(high), "f"(low));
  return pair;
}

// Matrix multiply-accumulate: d[16x8] += a[16x32] * b[32x8] of e4m3, float32 accumulators. Lane l, with g = l / 4 and
// t = 4 * (l % 4), holds
//   a[0] = A[g][t..t+3], a[1] = A[g+8][t..t+3], a[2] = A[g][t+16..t+19], a[3] = A[g+8][t+16..t+19]
//   b[0] = B[t..t+3][g], b[1] = B[t+16..t+19][g];   d as for 16-bit operands
// so what load_matrix_x4 reads as pairs of 16 bits are four elements in their places.
__device__ __forceinline__ void multiply_accumulate_16x8x32_e4m3(float (&d)[4], const std::uint32_t (&a)[4],
                                                                 const std::uint32_t (&b)[2]) {
  asm("mma.sync.aligned.m16n8k32.row.col.f32.e4m3.e4m3.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

}  // namespace sentcore::ptx
