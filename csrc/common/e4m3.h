// e4m3, an 8-bit floating-point number (Micikevicius et al. 2022, https://arxiv.org/abs/2209.05433): a sign, 4 bits of
// exponent, 3 of fraction. No infinity; the largest value is 448, the smallest above zero 2^-9. torch.float8_e4m3fn.
#pragma once

#include "common/portable.h"

namespace sentcore {

struct E4m3 {
  std::uint8_t bits;
};

constexpr float kLargestE4m3 = 448.0f;

// Without hardware support, as in float_bits.h: to nearest, ties to even; what is too large becomes 448, NaN stays NaN.
SENTCORE_HD E4m3 e4m3_from_float(float value) {
  const std::uint32_t bits = bits_as<std::uint32_t>(value);
  const std::uint32_t sign = (bits >> 24) & 0x80u;
  const std::uint32_t magnitude = bits & 0x7fffffffu;
  const std::uint32_t rebased = magnitude - (120u << 23);  // exponent bias 127 -> 7
  const std::uint32_t normal = (rebased + 0x7ffffu + ((rebased >> 20) & 1u)) >> 20;
  // A step of 2^-9 is the last place of 2^14: the addition itself rounds.
  const std::uint32_t subnormal =
      bits_as<std::uint32_t>(bits_as<float>(magnitude) + 16384.0f) - bits_as<std::uint32_t>(16384.0f);
  std::uint32_t result = magnitude < (121u << 23) ? subnormal : (normal > 0x7eu ? 0x7eu : normal);
  if (magnitude > 0x7f800000u) result = 0x7fu;
  return {static_cast<std::uint8_t>(result | sign)};
}

SENTCORE_HD float float_from_e4m3(E4m3 value) {
  const std::uint32_t sign = static_cast<std::uint32_t>(value.bits & 0x80u) << 24;
  const std::uint32_t magnitude = value.bits & 0x7fu;
  const float small = static_cast<float>(magnitude) * 0.001953125f;  // 2^-9
  std::uint32_t result = magnitude < 8u ? bits_as<std::uint32_t>(small) : (magnitude << 20) + (120u << 23);
  if (magnitude == 0x7fu) result = 0x7fc00000u;
  return bits_as<float>(result | sign);
}

}  // namespace sentcore
