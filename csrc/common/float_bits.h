// bfloat16 and float16 as bit patterns, without hardware support: for the CPU kernels and the emulation.
// Free of branches, so that a compiler can vectorise loops over them. Rounding is to nearest, ties to even.
#pragma once

#include "common/portable.h"

namespace sentcore {

SENTCORE_HD float float_from_bfloat16_bits(std::uint16_t bits) {
  return bits_as<float>(static_cast<std::uint32_t>(bits) << 16);
}

SENTCORE_HD std::uint16_t bfloat16_bits_from_float(float value) {
  const std::uint32_t bits = bits_as<std::uint32_t>(value);
  const std::uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const bool is_nan = (bits & 0x7fffffffu) > 0x7f800000u;  // rounding could carry a NaN into infinity
  return static_cast<std::uint16_t>(is_nan ? 0x7fc0u : rounded);
}

SENTCORE_HD float float_from_float16_bits(std::uint16_t bits) {
  const std::uint32_t sign = static_cast<std::uint32_t>(bits & 0x8000u) << 16;
  const std::uint32_t magnitude = static_cast<std::uint32_t>(bits & 0x7fffu) << 13;
  const std::uint32_t normal = magnitude + (112u << 23);  // exponent bias 15 -> 127
  const std::uint32_t special = magnitude | 0x7f800000u;  // infinity, NaN
  // A subnormal's fraction is read below an implicit one, which is then taken away.
  const std::uint32_t subnormal =
      bits_as<std::uint32_t>(bits_as<float>(magnitude + (113u << 23)) - bits_as<float>(113u << 23));
  std::uint32_t result = magnitude >= (31u << 23) ? special : normal;
  result = magnitude < (1u << 23) ? subnormal : result;
  return bits_as<float>(result | sign);
}

SENTCORE_HD std::uint16_t float16_bits_from_float(float value) {
  const std::uint32_t bits = bits_as<std::uint32_t>(value);
  const std::uint32_t sign = (bits >> 16) & 0x8000u;
  const std::uint32_t magnitude = bits & 0x7fffffffu;
  const std::uint32_t normal = (magnitude - (112u << 23) + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
  const std::uint32_t special = magnitude > 0x7f800000u ? 0x7e00u : 0x7c00u;
  // Adding 0.5 moves a subnormal's bits to the bottom of the fraction, rounded by the addition itself.
  const std::uint32_t subnormal =
      bits_as<std::uint32_t>(bits_as<float>(magnitude) + 0.5f) - bits_as<std::uint32_t>(0.5f);
  std::uint32_t result = magnitude >= (143u << 23) ? special : normal;  // 65536 and above
  result = magnitude < (113u << 23) ? subnormal : result;
  return static_cast<std::uint16_t>(result | sign);
}

}  // namespace sentcore
