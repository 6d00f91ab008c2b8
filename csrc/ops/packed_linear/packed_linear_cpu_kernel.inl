// Rows of x with panels of the weight on one instruction set; packed_linear_cpu.cpp compiles it for each.

// clang-format off: in this order
#include "common/simd.inl"
#include "common/activations.inl"
#include "common/product.inl"
#include "ops/packed_linear/packed_linear_cpu_activations.inl"
// clang-format on

namespace sentcore {
namespace SENTCORE_ISA {
namespace {

constexpr std::int64_t kFewRows = 2 * kRows;  // of a task; up to them the weight is read in the order of memory
// The depth is cut into blocks: a panel's part of one stays near while the rows go past it, and sums are more exact.
constexpr std::int64_t kDepthBlock = 384;  // units at most
constexpr std::int64_t kPadding = 16;      // behind a copied row, so that rows do not share cache sets

// ---- what is multiplied ----
// Factor: an element of a row as the kernel reads it, kFactors of them for a unit of the weight; Column: a vector of
// units of the weight, or of one part of each, ready to be multiplied with any number of rows.

struct Floats : Plain<float> {
  typedef float Factor;
  typedef Vec<float> Column;
  static constexpr int kFactors = 1;
  static SENTCORE_INLINE Column column(Vec<float> b, int) { return b; }
};

#if SENTCORE_ISA_HAS_BF16
struct BFloats : Pairs {
  typedef std::int32_t Factor;
  typedef IntVector Column;
  static constexpr int kFactors = 1;
  static SENTCORE_INLINE Column column(IntVector b, int) { return b; }
};
#else
// Where the CPU has no product of bfloat16, rows are widened once for all panels, and a column once for all its rows.
struct BFloats : WidenedPairs {
  typedef float Factor;
  typedef Vec<float> Column;
  static constexpr int kFactors = 2;
  static SENTCORE_INLINE Column column(IntVector b, int part) { return (Vec<float>)(part ? b & ~0xffff : b << 16); }
  static SENTCORE_INLINE Vec<float> add(Vec<float> sum, float a, Column b) { return sum + a * b; }
};
#endif

// A block of a panel and what becomes of its products.
template <typename P, typename T>
struct Panel {
  const typename P::Unit* weight;  // [depth, 32]
  std::int64_t depth;              // in units
  std::int64_t stride;             // of the rows, in factors
  bool first, last;                // of the panel's blocks
  float* sums;                     // [rows, 32] of the blocks before
  std::int64_t sums_stride;
  const char* ahead;        // the block that is read next: with few rows it comes from memory
  std::int64_t ahead_step;  // bytes of it that are asked for beside a row and a vector's line of the weight
  float bias[kPanelColumns];
  std::int64_t columns;  // of the 32, that are the weight's
  PackedActivation activation;
  T* out;
  std::int64_t out_stride;
};

// values [R, C vectors], activated, to the first columns of out.
template <typename T, int R, int C>
inline void finish_tile(const Vec<float> (*values)[C], PackedActivation activation, std::int64_t columns, T* out,
                        std::int64_t out_stride) {
  constexpr int L = kLanes<float>;
  for (int r = 0; r < R; ++r) {
    for (int j = 0; j < C; ++j) {
      const Vec<float> result = activated<T>(activation, values[r][j]);
      T* target = out + r * out_stride + j * L;
      if ((j + 1) * L <= columns) {
        store_narrow(target, result);
      } else {
        T part[L];
        store_narrow(part, result);
        for (std::int64_t i = j * L; i < columns; ++i) target[i - j * L] = part[i - j * L];
      }
    }
  }
}

// sums [R, C vectors of columns from `column` on] += a [R, depth] * panel.
template <typename P, typename T, int R, int C>
SENTCORE_INLINE void add_products(const typename P::Factor* a, const Panel<P, T>& panel, int column, const char* ahead,
                                  Vec<float> (*sums)[C]) {
  constexpr int L = kLanes<float>, kLines = C * L * 4 / 64;
  const typename P::Unit* weight = panel.weight + column;
  const typename P::Factor* rows[R];  // a pointer each: an address that is added up takes time from the products
#pragma GCC unroll 12
  for (int r = 0; r < R; ++r) rows[r] = a + r * panel.stride;
  for (std::int64_t k = 0; k < panel.depth; ++k) {
#pragma GCC unroll 2
    for (int line = 0; line < kLines; ++line) __builtin_prefetch(ahead + (k * kLines + line) * panel.ahead_step);
#pragma GCC unroll 2
    for (int part = 0; part < P::kFactors; ++part) {
      typename P::Column columns[C];
#pragma GCC unroll 4
      for (int j = 0; j < C; ++j) columns[j] = P::column(load(weight + k * kPanelColumns + j * L), part);
#pragma GCC unroll 12
      for (int r = 0; r < R; ++r) {
        const typename P::Factor factor = rows[r][k * P::kFactors + part];
#pragma GCC unroll 4
        for (int j = 0; j < C; ++j) sums[r][j] = P::add(sums[r][j], factor, columns[j]);
      }
    }
  }
}

// The panel's columns from `column` on, C vectors, of R rows from `row` on, of which a [R, depth] is the block.
template <typename P, typename T, int R, int C>
SENTCORE_INLINE void multiply_columns(const typename P::Factor* a, const Panel<P, T>& panel, std::int64_t row,
                                      int column) {
  constexpr int L = kLanes<float>;
  float* const before = panel.sums + row * panel.sums_stride + column;
  Vec<float> sums[R][C];
#pragma GCC unroll 12
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int j = 0; j < C; ++j) sums[r][j] = Vec<float>{};
  }
  add_products<P, T, R, C>(a, panel, column, panel.ahead + column / 16 * panel.depth * panel.ahead_step, sums);
  // A block is summed for itself: the sum of sums is the more exact one.
  if (!panel.first) {
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
      for (int j = 0; j < C; ++j) sums[r][j] += load(before + r * panel.sums_stride + j * L);
    }
  }
  if (!panel.last) {
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
      for (int j = 0; j < C; ++j) store(before + r * panel.sums_stride + j * L, sums[r][j]);
    }
    return;
  }
#pragma GCC unroll 4
  for (int j = 0; j < C; ++j) {
    const Vec<float> bias = load(panel.bias + column + j * L);
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r) sums[r][j] += bias;
  }
  T* const out = panel.out + row * panel.out_stride + column;
  if (panel.activation == PackedActivation::none && column + C * L <= panel.columns) {
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
      for (int j = 0; j < C; ++j) store_narrow(out + r * panel.out_stride + j * L, sums[r][j]);
    }
  } else {
    Vec<float> values[R][C];  // a copy: sums whose address is taken would lie in memory from the beginning
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
      for (int j = 0; j < C; ++j) values[r][j] = sums[r][j];
    }
    finish_tile<T, R, C>(values, panel.activation, panel.columns - column, out, panel.out_stride);
  }
}

template <typename P, typename T, int R>
inline void multiply_panel(const typename P::Factor* a, const Panel<P, T>& panel, std::int64_t row) {
  constexpr int L = kLanes<float>, kAll = kPanelColumns / L;
  // A few rows read the panel once, in the order in which it comes from memory.
  if constexpr (SENTCORE_VECTOR_COUNT < 32 && R * kAll <= 12) {
    multiply_columns<P, T, R, kAll>(a, panel, row, 0);
  } else {
    for (int column = 0; column < kPanelColumns && column < panel.columns; column += 2 * L) {
      multiply_columns<P, T, R, 2>(a, panel, row, column);
    }
  }
}

template <typename P, typename T>
struct Products {
  typedef void (*Product)(const typename P::Factor*, const Panel<P, T>&, std::int64_t);
  static constexpr Product of_rows[] = {
      nullptr,
      multiply_panel<P, T, 1>,
      multiply_panel<P, T, 2>,
      multiply_panel<P, T, 3>,
      multiply_panel<P, T, 4>,
      multiply_panel<P, T, 5>,
      multiply_panel<P, T, 6>,
#if SENTCORE_VECTOR_COUNT >= 32
      multiply_panel<P, T, 7>,
      multiply_panel<P, T, 8>,
      multiply_panel<P, T, 9>,
      multiply_panel<P, T, 10>,
      multiply_panel<P, T, 11>,
      multiply_panel<P, T, 12>,
#endif
  };
};

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
  // Whole panels of float32 have their sums in `out`.
  const std::int64_t panels = few || args.dtype == Dtype::float32 ? 1 : task.last_panel - task.first_panel;
  return {count * (few ? args.depth + blocks * kPadding : ceil_div(args.depth, blocks) + 2 * kPadding),
          blocks == 1 ? 0 : count * panels * kPanelColumns};
}

template <typename P, typename T>
inline void run_rows(const PackedLinear& args, const PackedLinearTask& task, float* memory) {
  typedef typename P::Unit Unit;
  typedef typename P::Factor Factor;
  const std::int64_t count = task.last_row - task.first_row, panels = task.last_panel - task.first_panel;
  const std::int64_t units = args.depth / P::kDepth, blocks = blocks_of(args);
  const std::int64_t tiles = ceil_div<std::int64_t>(count, kRows);
  const bool few = count <= kFewRows, copied = blocks > 1 || needs_copies<P, T>(args.depth);
  Factor* const copies = reinterpret_cast<Factor*>(memory);
  float* const sums = memory + memory_of(args, task).rows;
  const T* x = static_cast<const T*>(args.x) + task.first_row * args.depth;
  Panel<P, T> panel;
  panel.activation = args.activation;
  panel.out_stride = args.columns;
  panel.ahead_step = 64 / (tiles < 64 ? tiles : 64);
  for (std::int64_t i = 0; i < blocks * panels; ++i) {
    const std::int64_t b = few ? i % blocks : i / panels, p = task.first_panel + (few ? i / blocks : i % panels);
    const std::int64_t begin = units * b / blocks, first = p * kPanelColumns;
    panel.depth = units * (b + 1) / blocks - begin;
    panel.first = b == 0;
    panel.last = b == blocks - 1;
    const Factor* rows = reinterpret_cast<const Factor*>(x);
    panel.stride = units * P::kFactors;
    if (copied) {
      panel.stride = panel.depth * P::kFactors + kPadding;
      Factor* const target = copies + (few ? (begin * P::kFactors + b * kPadding) * count : 0);
      if (few ? i < blocks : p == task.first_panel) {
        copy_rows<P>(x + begin * P::kDepth, args.depth, count, panel.depth * P::kDepth, target, panel.stride);
      }
      rows = target;
    }
    panel.weight = static_cast<const Unit*>(args.weight) + first * units + begin * kPanelColumns;
    panel.ahead = reinterpret_cast<const char*>(panel.weight + (few ? panel.depth : units) * kPanelColumns);
    panel.columns = args.columns - first < kPanelColumns ? args.columns - first : kPanelColumns;
    for (std::int64_t j = 0; j < kPanelColumns; ++j) {
      const bool has = args.bias != nullptr && j < panel.columns;
      panel.bias[j] = has ? cpu::widen(static_cast<const T*>(args.bias)[first + j]) : 0.0f;
    }
    panel.out = static_cast<T*>(args.out) + task.first_row * args.columns + first;
    panel.sums = sums + (few || sizeof(T) == 4 ? 0 : (p - task.first_panel) * count * kPanelColumns);
    panel.sums_stride = kPanelColumns;
    if constexpr (sizeof(T) == 4) {
      if (panel.columns == kPanelColumns) {
        panel.sums = panel.out;
        panel.sums_stride = args.columns;
      }
    }
    for (std::int64_t t = 0; t < tiles; ++t) {
      const std::int64_t r = count * t / tiles;
      Products<P, T>::of_rows[count * (t + 1) / tiles - r](rows + r * panel.stride, panel, r);
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
