// What the CPU kernels share: element types and torch's thread pool. for_each_isa.h picks the instruction set.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "common/float_bits.h"
#include "common/tensor.h"

namespace sentcore::cpu {

// ---- element types ----

struct BFloat16 {
  std::uint16_t bits;
};
struct Float16 {
  std::uint16_t bits;
};

// What sums over T are kept in: float64 for float64, float32 for the rest.
template <typename T>
using Wide = std::conditional_t<std::is_same_v<T, double>, double, float>;

SENTCORE_HD float widen(float value) { return value; }
SENTCORE_HD double widen(double value) { return value; }
SENTCORE_HD float widen(BFloat16 value) { return float_from_bfloat16_bits(value.bits); }
SENTCORE_HD float widen(Float16 value) { return float_from_float16_bits(value.bits); }

SENTCORE_HD void narrow(float value, float& target) { target = value; }
SENTCORE_HD void narrow(double value, double& target) { target = value; }
SENTCORE_HD void narrow(float value, BFloat16& target) { target.bits = bfloat16_bits_from_float(value); }
SENTCORE_HD void narrow(float value, Float16& target) { target.bits = float16_bits_from_float(value); }

// ---- threads ----

inline std::int64_t num_threads() { return torch::stable::get_num_threads(); }

// run(begin, end) over [0, count) on torch's own threads, at least `grain` items at a time.
template <typename Run>
void parallel_for(std::int64_t count, std::int64_t grain, const Run& run) {
  if (count > 0) torch::stable::parallel_for(0, count, grain, run);
}

}  // namespace sentcore::cpu
