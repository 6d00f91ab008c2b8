// common/sm90a/ptx.cuh for the emulation: the same functions, with the same contracts, checked.
//
// Copies happen at a time nobody knows: until then the target of a load is poison, and a store has read nothing. A
// warpgroup's products happen when they are waited for, from what then lies in shared memory.
#pragma once

#include <cstring>
#include <vector>

#include "common/e4m3.h"
#include "common/sm90a/tensor_map.h"
#include "emulation/runtime.h"

#define __grid_constant__

namespace sentcore::ptx {

struct alignas(8) Barrier {
  std::uint64_t word;
};

inline std::uint32_t shared_address(const void* shared) { return emulation::shared_address(shared); }

inline void keep_order() {}
inline int uniform(int x) { return x; }
inline void forget(float&) {}
inline void forget(int&) {}
inline void compute_before(float) {}
void store_shared(std::uint32_t target, std::uint32_t value);
void barrier_init(Barrier* barrier, unsigned arrivals);
inline void barrier_init_fence() {}
void barrier_arrive(Barrier* barrier);
void barrier_arrive_and_expect(Barrier* barrier, unsigned bytes);
void barrier_wait(Barrier* barrier, unsigned parity);
void named_barrier(int number, int threads);

void load_box(void* shared, const TensorMap* map, Barrier* barrier, int row, int column);
inline void fence_for_copies() {}
void store_box(const TensorMap* map, std::uint32_t shared, int row, int column);
void store_commit();
namespace emulated {
void store_wait(int pending);
// Where a byte of a swizzled box lies: the unit of 16 bytes is changed by the row, both as the address says.
inline std::uint32_t swizzled(std::uint32_t address) { return address ^ (address >> 7 & 7) << 4; }
}  // namespace emulated
template <int pending>
inline void store_wait_read() {
  emulated::store_wait(pending);
}

template <int count>
inline void give_registers() {
  static_assert(count >= 24 && count <= 256 && count % 8 == 0, "");
}
template <int count>
inline void take_registers() {
  static_assert(count >= 24 && count <= 256 && count % 8 == 0, "");
}

namespace emulated {

// How an element is read from shared memory.
enum class Element { bfloat16, float16, e4m3 };
template <typename T>
constexpr Element kElement = Element::bfloat16;
template <>
inline constexpr Element kElement<__half> = Element::float16;
template <>
inline constexpr Element kElement<E4m3> = Element::e4m3;

struct Product {
  std::uint64_t a, b;
  bool a_by_depth, b_by_depth;
  Element element;
  int columns;
  bool accumulate;
  float* sums;  // of this thread: [columns / 8][4]
  // A given in registers, as in multiply_accumulate_16x8x16: those of the four threads that share its rows.
  bool a_in_registers;
  std::uint32_t registers[4][4];
};

void start(Product product);
void wait(int pending);
void commit();
void fence();

}  // namespace emulated

inline void product_fence() { emulated::fence(); }
inline void product_commit() { emulated::commit(); }
template <int pending>
inline void product_wait() {
  emulated::wait(pending);
}

template <typename T, bool kAByDepth, bool kBByDepth, int kColumns>
inline void multiply_64(float (&sums)[kColumns / 2], std::uint64_t a, std::uint64_t b, bool accumulate) {
  emulated::start({a, b, kAByDepth, kBByDepth, emulated::kElement<T>, kColumns, accumulate, sums, false, {}});
}

template <typename T, bool kBByDepth, int kColumns>
inline void multiply_64(float (&sums)[kColumns / 2], const std::uint32_t (&a)[4], std::uint64_t b, bool accumulate) {
  emulated::start(
      {0, b, true, kBByDepth, emulated::kElement<T>, kColumns, accumulate, sums, true, {{a[0], a[1], a[2], a[3]}}});
}

}  // namespace sentcore::ptx
