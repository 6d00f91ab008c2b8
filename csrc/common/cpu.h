// What the CPU kernels share: element types and torch's thread pool. for_each_isa.h picks the instruction set.
#pragma once

#include <cstdint>
#include <cstring>
#include <memory>
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

// Whether this thread was given work to do by itself, by alone() below.
inline bool& is_alone() {
  static thread_local bool alone = false;
  return alone;
}

inline std::int64_t num_threads() { return is_alone() ? 1 : torch::stable::get_num_threads(); }

// run(begin, end) over [0, count) on torch's own threads, at least `grain` items at a time.
template <typename Run>
void parallel_for(std::int64_t count, std::int64_t grain, const Run& run) {
  if (count <= 0) return;
  if (is_alone()) return run(std::int64_t{0}, count);
  torch::stable::parallel_for(0, count, grain, run);
}

// run() with all of its kernels in this thread.
template <typename Run>
void alone(const Run& run) {
  struct Restored {
    bool before = is_alone();
    ~Restored() { is_alone() = before; }
  } const restored;
  is_alone() = true;
  run();
}

// Memory of one thread, from the beginning of a cache line on.
class ThreadMemory {
 public:
  explicit ThreadMemory(std::int64_t bytes) : bytes_(new unsigned char[static_cast<std::size_t>(bytes) + kLine]) {}
  void* get() const {
    const auto address = reinterpret_cast<std::uintptr_t>(bytes_.get());
    return bytes_.get() + (kLine - address % kLine) % kLine;
  }

 private:
  static constexpr std::size_t kLine = 64;
  std::unique_ptr<unsigned char[]> bytes_;
};

}  // namespace sentcore::cpu
