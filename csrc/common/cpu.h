// What the CPU kernels share: element types, the instruction set of the machine at hand, torch's thread pool.
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

// ---- instruction sets ----
// One binary serves old and new machines: run_best<Body>(arguments...) calls Body::run, which must be SENTCORE_HD, in
// the copy compiled for the best instruction set here.

#if defined(__x86_64__) && defined(__GNUC__)

template <typename Body, typename... Args>
__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma"))) void run_avx512(const Args&... args) {
  Body::run(args...);
}

template <typename Body, typename... Args>
__attribute__((target("avx2,fma"))) void run_avx2(const Args&... args) {
  Body::run(args...);
}

template <typename Body, typename... Args>
void run_best(const Args&... args) {
  static const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                             __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  static const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (avx512) return run_avx512<Body>(args...);
  if (avx2) return run_avx2<Body>(args...);
  Body::run(args...);
}

#else

template <typename Body, typename... Args>
void run_best(const Args&... args) {
  Body::run(args...);
}

#endif

// ---- sums ----

// Sum of term(j) over j < count, in a fixed order: 16 running sums, which a compiler may keep in vector registers
// without reordering any addition.
template <typename A, typename Term>
SENTCORE_HD A sum_over(std::int64_t count, const Term& term) {
  constexpr int kLanes = 16;
  A lanes[kLanes] = {};
  std::int64_t j = 0;
  for (; j + kLanes <= count; j += kLanes) {
    for (int k = 0; k < kLanes; ++k) lanes[k] += term(j + k);
  }
  for (; j < count; ++j) lanes[j % kLanes] += term(j);
  for (int width = kLanes / 2; width > 0; width /= 2) {
    for (int k = 0; k < width; ++k) lanes[k] += lanes[k + width];
  }
  return lanes[0];
}

// ---- threads ----

inline std::int64_t num_threads() { return torch::stable::get_num_threads(); }

// run(begin, end) over [0, count) on torch's own threads, at least `grain` items at a time.
template <typename Run>
void parallel_for(std::int64_t count, std::int64_t grain, const Run& run) {
  if (count > 0) torch::stable::parallel_for(0, count, grain, run);
}

}  // namespace sentcore::cpu
