// Rows of x with panels of the weight on one instruction set; packed_linear_cpu.cpp compiles it for each.

// clang-format off: in this order
#include "common/simd.inl"
#include "common/activations.inl"
#include "common/product.inl"
#include "ops/packed_linear/packed_linear_cpu_activations.inl"
#include "ops/packed_linear/packed_linear_cpu_panels.inl"
// clang-format on

namespace sentcore {
namespace SENTCORE_ISA {
namespace {

constexpr std::int64_t kFewRows = 2 * kRows;  // of a task; up to them the weight is read in the order of memory
// The depth is cut into blocks: a panel's part of one stays near while the rows go past it, and sums are more exact.
constexpr std::int64_t kDepthBlock = 384;  // units at most
constexpr std::int64_t kPadding = 16;      // behind a copied row, so that rows do not share cache sets

// Whether rows are copied even where the depth is one block.
template <typename P, typename T>
inline bool needs_copies(std::int64_t depth) {
  const std::int64_t bytes = depth * static_cast<std::int64_t>(sizeof(T));
  return (sizeof(T) < sizeof(float) && P::kFactors > 1) || bytes % 1024 == 0 || bytes % 4 != 0;
}

// Depth elements of `count` rows of x, at multiples of `stride`.
template <typename P, typename T>
inline void copy_rows(const T* x, std::int64_t x_stride, std::int64_t count, std::int64_t depth,
                      typename P::Factor* target, std::int64_t stride) {
  constexpr int L = kLanes<float>;
  for (std::int64_t r = 0; r < count; ++r, x += x_stride, target += stride) {
    if constexpr (sizeof(T) < sizeof(float) && P::kFactors > 1) {
      std::int64_t k = 0;
      for (; k + L <= depth; k += L) store(target + k, load_wide(x + k));
      for (; k < depth; ++k) target[k] = cpu::widen(x[k]);
    } else {
      __builtin_memcpy(target, x, static_cast<std::size_t>(depth) * sizeof(T));
    }
  }
}

// By the depth and dtype alone: so are the bits of a row.
inline std::int64_t blocks_of(const PackedLinear& args) {
  return ceil_div(args.depth, args.dtype == Dtype::float32 ? kDepthBlock : 2 * kDepthBlock);
}

// How much of a task's memory holds its rows, then sums between two blocks of the depth; in floats.
struct TaskMemory {
  std::int64_t rows, sums;
};
inline TaskMemory memory_of(const PackedLinear& args, const PackedLinearTask& task) {
  const std::int64_t count = task.last_row - task.first_row, blocks = blocks_of(args);
  const bool few = count <= kFewRows;
  // Whole vectors of float32 have their sums in `out`.
  const std::int64_t panels = few || args.dtype == Dtype::float32 ? 1 : task.last_panel - task.first_panel;
  return {count * (few ? args.depth + blocks * kPadding : ceil_div(args.depth, blocks) + 2 * kPadding),
          blocks == 1 ? 0 : count * (panels + 1) * kPanelColumns};
}

template <typename P, typename T>
inline void run_rows(const PackedLinear& args, const PackedLinearTask& task, float* memory) {
  typedef typename P::Unit Unit;
  typedef typename P::Factor Factor;
  constexpr std::int64_t L = kLanes<float>;
  const std::int64_t count = task.last_row - task.first_row, begin_column = task.first_panel * kPanelColumns;
  const std::int64_t all_columns =
      task.last_panel * kPanelColumns < args.columns ? task.last_panel * kPanelColumns : args.columns;
  const std::int64_t units = args.depth / P::kDepth, blocks = blocks_of(args);
  const bool few = count <= kFewRows, copied = blocks > 1 || needs_copies<P, T>(args.depth);
  const bool wide = kWide == 3 && sizeof(T) == 4 && !few;
  const std::int64_t width = wide ? kWide * L : kPanelColumns, groups = ceil_div(all_columns - begin_column, width);
  const std::int64_t tiles = ceil_div<std::int64_t>(count, wide ? kWideRows : kRows);
  Factor* const copies = reinterpret_cast<Factor*>(memory);
  float* const sums = memory + memory_of(args, task).rows;
  const T* x = static_cast<const T*>(args.x) + task.first_row * args.depth;
  Panel<P, T> panel;
  panel.activation = args.activation;
  panel.out_stride = args.columns;
  panel.ahead_step = 64 / (tiles < 64 ? tiles : 64);
  for (std::int64_t i = 0; i < blocks * groups; ++i) {
    const std::int64_t b = few ? i % blocks : i / groups, g = few ? i / blocks : i % groups;
    const std::int64_t begin = units * b / blocks, first = begin_column + g * width;
    panel.depth = units * (b + 1) / blocks - begin;
    panel.first = b == 0;
    panel.last = b == blocks - 1;
    const Factor* rows = reinterpret_cast<const Factor*>(x);
    panel.stride = units * P::kFactors;
    if (copied) {
      panel.stride = panel.depth * P::kFactors + kPadding;
      Factor* const target = copies + (few ? (begin * P::kFactors + b * kPadding) * count : 0);
      if (few ? i < blocks : g == 0) {
        copy_rows<P>(x + begin * P::kDepth, args.depth, count, panel.depth * P::kDepth, target, panel.stride);
      }
      rows = target;
    }
    const Unit* const weight = static_cast<const Unit*>(args.weight) + begin * kPanelColumns;
    for (int j = 0; j < 3; ++j) {
      const std::int64_t column = first + j * L;
      panel.vectors[j] = weight + column / kPanelColumns * kPanelColumns * units + column % kPanelColumns;
    }
    panel.weight = weight + first * units;  // of a whole panel alone
    panel.ahead = reinterpret_cast<const char*>(panel.weight + (few ? panel.depth : units) * kPanelColumns);
    if (wide) {  // the panels behind the last one that is read here, as far as the next three vectors
      const std::int64_t last = (first + width - 1) / kPanelColumns, next = (first + 2 * width - 1) / kPanelColumns;
      panel.ahead = reinterpret_cast<const char*>(weight + (last + 1) * kPanelColumns * units);
      panel.ahead_step = ceil_div<std::int64_t>((next - last) * 128, tiles);
    }
    panel.columns = all_columns - first < width ? all_columns - first : width;
    for (std::int64_t j = 0; j < width; ++j) {
      const bool has = args.bias != nullptr && j < panel.columns;
      panel.bias[j] = has ? cpu::widen(static_cast<const T*>(args.bias)[first + j]) : 0.0f;
    }
    panel.out = static_cast<T*>(args.out) + task.first_row * args.columns + first;
    panel.sums = sums + (few || sizeof(T) == 4 ? 0 : g * count * kPanelColumns);
    panel.sums_stride = sizeof(T) == 4 ? 2 * kPanelColumns : kPanelColumns;
    if constexpr (sizeof(T) == 4) {
      if (wide ? panel.columns % L == 0 : panel.columns == kPanelColumns) {
        panel.sums = panel.out;
        panel.sums_stride = args.columns;
      }
    }
    for (std::int64_t t = 0; t < tiles; ++t) {
      const std::int64_t r = count * t / tiles, next = count * (t + 1) / tiles;
#if SENTCORE_VECTOR_COUNT >= 32
      if (wide) {
        Products<P, T>::of_wide_rows[next - r](rows + r * panel.stride, panel, r);
        panel.ahead += panel.depth * panel.ahead_step;
        continue;
      }
#endif
      Products<P, T>::of_rows[next - r](rows + r * panel.stride, panel, r);
      panel.ahead += 2 * panel.depth * panel.ahead_step;
    }
  }
}

inline std::int64_t floats_of(const PackedLinear& args, const PackedLinearTask& task) {
  const TaskMemory memory = memory_of(args, task);
  return memory.rows + memory.sums;
}

inline void run(const PackedLinear& args, const PackedLinearTask& task, float* memory) {
  if (args.dtype == Dtype::float32) return run_rows<Floats, float>(args, task, memory);
  run_rows<BFloats, cpu::BFloat16>(args, task, memory);
}

}  // namespace
}  // namespace SENTCORE_ISA
}  // namespace sentcore
