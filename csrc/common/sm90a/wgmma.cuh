// wgmma: the product of a warpgroup, 64 rows by kColumns columns by 16 of depth (32 of e4m3), float32 sums.
// Warp w of the group has rows 16 w to 16 w + 15; lane l, with g = l / 4 and t = 2 * (l % 4), has of columns 8 n to
// 8 n + 7 in sums[4 n + i]: D[g][t, t + 1] for i = 0, 1 and D[g + 8][t, t + 1] for i = 2, 3.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

namespace sentcore::ptx {

// sums = A * B, plus sums with accumulate. a and b are what operand() gives; kAByDepth, kBByDepth: memory runs along
// the depth. The second form takes 64 x 16 of A from registers, as multiply_accumulate_16x8x16 takes 16 x 16 a warp.
// sums have a value before the first product, also where it takes none: ptxas 12.8 waits between all products otherwise
// (C7515).
template <typename T, bool kAByDepth, bool kBByDepth, int kColumns>
__device__ __forceinline__ void multiply_64(float (&sums)[kColumns / 2], std::uint64_t a, std::uint64_t b,
                                            bool accumulate);
template <typename T, bool kBByDepth, int kColumns>
__device__ __forceinline__ void multiply_64(float (&sums)[kColumns / 2], const std::uint32_t (&a)[4], std::uint64_t b,
                                            bool accumulate);

// "%t0, %t1, ... %t9", and the operands from d[i] on.
#define SENTCORE_TEN(t) \
  "%" #t "0, %" #t "1, %" #t "2, %" #t "3, %" #t "4, %" #t "5, %" #t "6, %" #t "7, %" #t "8, %" #t "9"
#define SENTCORE_SUMS_8(d, i)                                                                                 \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), "+f"(d[i + 6]), \
      "+f"(d[i + 7])
#define SENTCORE_SUMS_32(d, i) \
  SENTCORE_SUMS_8(d, i), SENTCORE_SUMS_8(d, i + 8), SENTCORE_SUMS_8(d, i + 16), SENTCORE_SUMS_8(d, i + 24)
#define SENTCORE_SUMS_64(d) SENTCORE_SUMS_32(d, 0)
#define SENTCORE_SUMS_128(d) SENTCORE_SUMS_32(d, 0), SENTCORE_SUMS_32(d, 32)
#define SENTCORE_SUMS_192(d) SENTCORE_SUMS_32(d, 0), SENTCORE_SUMS_32(d, 32), SENTCORE_SUMS_32(d, 64)
#define SENTCORE_NAMES_64 SENTCORE_TEN() ", " SENTCORE_TEN(1) ", " SENTCORE_TEN(2) ", %30, %31"
#define SENTCORE_NAMES_128                                                                               \
  SENTCORE_TEN()                                                                                         \
  ", " SENTCORE_TEN(1) ", " SENTCORE_TEN(2) ", " SENTCORE_TEN(3) ", " SENTCORE_TEN(4) ", " SENTCORE_TEN( \
      5) ", %60, %61, %62, %63"
#define SENTCORE_NAMES_192                                                                               \
  SENTCORE_TEN()                                                                                         \
  ", " SENTCORE_TEN(1) ", " SENTCORE_TEN(2) ", " SENTCORE_TEN(3) ", " SENTCORE_TEN(4) ", " SENTCORE_TEN( \
      5) ", " SENTCORE_TEN(6) ", " SENTCORE_TEN(7) ", " SENTCORE_TEN(8) ", %90, %91, %92, %93, %94, %95"

// Operands behind the sums: a, b, accumulate, then whether a and b run across the depth. p0 to p6 are their numbers.
#define SENTCORE_WGMMA(type, n, p0, p1, p2, p3, p4)                                                                   \
  template <bool kAByDepth, bool kBByDepth>                                                                           \
  __device__ __forceinline__ void wgmma_##type##_##n(float (&d)[n / 2], std::uint64_t a, std::uint64_t b, int more) { \
    asm volatile("{\n.reg .pred more;\nsetp.ne.b32 more, %" #p2 ", 0;\nwgmma.mma_async.sync.aligned.m64n" #n          \
                 "k16.f32." #type "." #type " {" SENTCORE_NAMES_##n "}, %" #p0 ", %" #p1 ", more, 1, 1, %" #p3        \
                                                                    ", %" #p4 ";\n}"                                  \
                 : SENTCORE_SUMS_##n(d)                                                                               \
                 : "l"(a), "l"(b), "r"(more), "n"(kAByDepth ? 0 : 1), "n"(kBByDepth ? 0 : 1));                        \
  }
#define SENTCORE_WGMMA_REGISTERS(type, n, p0, p1, p2, p3, p4, p5, p6)                                          \
  template <bool kBByDepth>                                                                                    \
  __device__ __forceinline__ void wgmma_registers_##type##_##n(float (&d)[n / 2], const std::uint32_t (&a)[4], \
                                                               std::uint64_t b, int more) {                    \
    asm volatile("{\n.reg .pred more;\nsetp.ne.b32 more, %" #p5 ", 0;\nwgmma.mma_async.sync.aligned.m64n" #n   \
                 "k16.f32." #type "." #type " {" SENTCORE_NAMES_##n "}, {%" #p0 ", %" #p1 ", %" #p2 ", %" #p3  \
                                                                    "}, %" #p4 ", more, 1, 1, %" #p6 ";\n}"    \
                 : SENTCORE_SUMS_##n(d)                                                                        \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(more), "n"(kBByDepth ? 0 : 1));     \
  }

// e4m3's operands always run along the depth.
#define SENTCORE_WGMMA_E4M3(n, p0, p1, p2)                                                                        \
  __device__ __forceinline__ void wgmma_e4m3_##n(float (&d)[n / 2], std::uint64_t a, std::uint64_t b, int more) { \
    asm volatile("{\n.reg .pred more;\nsetp.ne.b32 more, %" #p2 ", 0;\nwgmma.mma_async.sync.aligned.m64n" #n      \
                 "k32.f32.e4m3.e4m3 {" SENTCORE_NAMES_##n "}, %" #p0 ", %" #p1 ", more, 1, 1;\n}"                 \
                 : SENTCORE_SUMS_##n(d)                                                                           \
                 : "l"(a), "l"(b), "r"(more));                                                                    \
  }

SENTCORE_WGMMA_E4M3(128, 64, 65, 66)
SENTCORE_WGMMA_E4M3(192, 96, 97, 98)
SENTCORE_WGMMA(bf16, 128, 64, 65, 66, 67, 68)
SENTCORE_WGMMA(bf16, 192, 96, 97, 98, 99, 100)
SENTCORE_WGMMA_REGISTERS(bf16, 64, 32, 33, 34, 35, 36, 37, 38)
SENTCORE_WGMMA_REGISTERS(bf16, 128, 64, 65, 66, 67, 68, 69, 70)
SENTCORE_WGMMA(f16, 128, 64, 65, 66, 67, 68)
SENTCORE_WGMMA(f16, 192, 96, 97, 98, 99, 100)
SENTCORE_WGMMA_REGISTERS(f16, 64, 32, 33, 34, 35, 36, 37, 38)
SENTCORE_WGMMA_REGISTERS(f16, 128, 64, 65, 66, 67, 68, 69, 70)

template <typename T>
constexpr bool kIsBfloat16 = false;
template <>
inline constexpr bool kIsBfloat16<__nv_bfloat16> = true;

template <typename T, bool kAByDepth, bool kBByDepth, int kColumns>
__device__ __forceinline__ void multiply_64(float (&sums)[kColumns / 2], std::uint64_t a, std::uint64_t b,
                                            bool accumulate) {
  static_assert(kColumns == 128 || kColumns == 192, "");
  if constexpr (sizeof(T) == 1) {
    static_assert(kAByDepth && kBByDepth, "");
    if constexpr (kColumns == 128) wgmma_e4m3_128(sums, a, b, accumulate);
    if constexpr (kColumns == 192) wgmma_e4m3_192(sums, a, b, accumulate);
  } else if constexpr (kIsBfloat16<T>) {
    if constexpr (kColumns == 128) wgmma_bf16_128<kAByDepth, kBByDepth>(sums, a, b, accumulate);
    if constexpr (kColumns == 192) wgmma_bf16_192<kAByDepth, kBByDepth>(sums, a, b, accumulate);
  } else {
    if constexpr (kColumns == 128) wgmma_f16_128<kAByDepth, kBByDepth>(sums, a, b, accumulate);
    if constexpr (kColumns == 192) wgmma_f16_192<kAByDepth, kBByDepth>(sums, a, b, accumulate);
  }
}

template <typename T, bool kBByDepth, int kColumns>
__device__ __forceinline__ void multiply_64(float (&sums)[kColumns / 2], const std::uint32_t (&a)[4], std::uint64_t b,
                                            bool accumulate) {
  static_assert(kColumns == 64 || kColumns == 128, "");
  if constexpr (kIsBfloat16<T>) {
    if constexpr (kColumns == 64) wgmma_registers_bf16_64<kBByDepth>(sums, a, b, accumulate);
    if constexpr (kColumns == 128) wgmma_registers_bf16_128<kBByDepth>(sums, a, b, accumulate);
  } else {
    if constexpr (kColumns == 64) wgmma_registers_f16_64<kBByDepth>(sums, a, b, accumulate);
    if constexpr (kColumns == 128) wgmma_registers_f16_128<kBByDepth>(sums, a, b, accumulate);
  }
}

#undef SENTCORE_TEN
#undef SENTCORE_SUMS_8
#undef SENTCORE_SUMS_32
#undef SENTCORE_SUMS_64
#undef SENTCORE_SUMS_128
#undef SENTCORE_SUMS_192
#undef SENTCORE_NAMES_64
#undef SENTCORE_NAMES_128
#undef SENTCORE_NAMES_192
#undef SENTCORE_WGMMA
#undef SENTCORE_WGMMA_E4M3
#undef SENTCORE_WGMMA_REGISTERS

}  // namespace sentcore::ptx
