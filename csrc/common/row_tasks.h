// How the CPU kernels of row-wise ops share out their rows, and the sums over all rows that their backwards give.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

#include "common/cpu.h"

namespace sentcore::cpu {

constexpr std::int64_t kElementsPerTask = 1 << 14;  // below, handing work to another thread costs more than it gains
constexpr std::int64_t kRowsPerGroup = 32;
constexpr std::int64_t kMaxGroups = 64;  // not the number of threads: sums must not depend on it
constexpr std::int64_t kColumnsPerTask = 256;

// parallel_for over rows of `width` elements.
template <typename Run>
void for_rows(std::int64_t rows, std::int64_t width, const Run& run) {
  parallel_for(rows, std::max<std::int64_t>(1, kElementsPerTask / std::max<std::int64_t>(1, width)), run);
}

// ---- buffers ----

// `count` buffers of `width` elements for the rows of one thread. Each begins on a cache line and is zero, also from
// `width` to the end of its last line: what is computed of these elements is added to no sum.
class RowBuffers {
 public:
  RowBuffers(int count, std::int64_t width, Dtype dtype)
      : stride_(ceil_div<std::int64_t>(width * (dtype == Dtype::float64 ? 8 : 4), kLine) * kLine),
        bytes_(new unsigned char[static_cast<std::size_t>(count * stride_ + kLine)]()) {
    const auto address = reinterpret_cast<std::uintptr_t>(bytes_.get());
    first_ = bytes_.get() + (kLine - static_cast<std::int64_t>(address % kLine)) % kLine;
  }

  template <typename A>
  A* get(int index) const {
    return reinterpret_cast<A*>(first_ + index * stride_);
  }

 private:
  static constexpr std::int64_t kLine = 64;
  std::int64_t stride_;
  std::unique_ptr<unsigned char[]> bytes_;
  unsigned char* first_;
};

// ---- element types ----

template <typename T>
struct TypeOf {
  using type = T;
};

// run(TypeOf<T>) for the element type that `dtype` names.
template <typename Run>
void for_dtype(Dtype dtype, const Run& run) {
  switch (dtype) {
    case Dtype::float32:
      return run(TypeOf<float>{});
    case Dtype::float64:
      return run(TypeOf<double>{});
    case Dtype::bfloat16:
      return run(TypeOf<BFloat16>{});
    case Dtype::float16:
      return run(TypeOf<Float16>{});
  }
}

// Buffer `index` becomes source [count] dtype in the type of sums, for kernels that read it once a row; null stays
// null.
inline const void* widen_into(const RowBuffers& buffers, int index, Dtype dtype, const void* source,
                              std::int64_t count) {
  if (source == nullptr) return nullptr;
  for_dtype(dtype, [&](auto element) {
    using T = typename decltype(element)::type;
    Wide<T>* target = buffers.get<Wide<T>>(index);
    for (std::int64_t j = 0; j < count; ++j) target[j] = widen(static_cast<const T*>(source)[j]);
  });
  return buffers.get<void>(index);
}

// ---- sums over rows ----

// Group g of sum_groups(T) takes the rows [T * g / G, T * (g + 1) / G) and writes its sums to its slice of `partial`.
inline std::int64_t sum_groups(std::int64_t rows) { return std::min(kMaxGroups, ceil_div(rows, kRowsPerGroup)); }

struct GroupSums {
  std::int64_t columns;  // N
  std::int64_t groups;   // G
  const void* partial;   // [3, G, N] float32 (float64 for float64), or as many of the three as have an output
  void* outputs[3];      // [N] dtype each, or null to leave that sum out
};

// outputs[s] [N] dtype = the sum over groups of partial[s], in the order of the groups.
inline void add_groups(Dtype dtype, const GroupSums& sums) {
  for_dtype(dtype, [&](auto element) {
    using T = typename decltype(element)::type;
    parallel_for(sums.columns, kColumnsPerTask, [&](std::int64_t begin, std::int64_t end) {
      std::vector<Wide<T>> sum(static_cast<std::size_t>(end - begin));
      for (int s = 0; s < 3; ++s) {
        if (sums.outputs[s] == nullptr) continue;
        std::fill(sum.begin(), sum.end(), Wide<T>(0));
        for (std::int64_t group = 0; group < sums.groups; ++group) {
          const Wide<T>* slice =
              static_cast<const Wide<T>*>(sums.partial) + (s * sums.groups + group) * sums.columns + begin;
          for (std::int64_t j = 0; j < end - begin; ++j) sum[j] += slice[j];
        }
        T* output = static_cast<T*>(sums.outputs[s]) + begin;
        for (std::int64_t j = 0; j < end - begin; ++j) narrow(sum[j], output[j]);
      }
    });
  });
}

}  // namespace sentcore::cpu
