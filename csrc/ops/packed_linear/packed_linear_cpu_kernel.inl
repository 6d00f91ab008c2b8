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
// With many rows float32 goes by three vectors of columns where there are registers for it: eight rows and three
// vectors are 11 loads for 24 products, where twelve and two are 14. Every sum is the same either way.
constexpr int kWide = SENTCORE_VECTOR_COUNT >= 32 ? 3 : 2;
constexpr std::int64_t kWideRows = kWide == 3 ? 8 : kRows;
constexpr std::int64_t kUnitsAtOnce = 16;  // between two requests for what is read next

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

// A block of a panel, or of three vectors of columns beside each other, and what becomes of its products.
template <typename P, typename T>
struct Panel {
  const typename P::Unit* weight;      // [depth, 32]
  const typename P::Unit* vectors[3];  // each [depth, a vector], at multiples of 32
  std::int64_t depth;                  // in units
  std::int64_t stride;                 // of the rows, in factors
  bool first, last;                    // of the panel's blocks
  float* sums;                         // [rows, 32] of the blocks before
  std::int64_t sums_stride;
  const char* ahead;        // the block that is read next: with few rows it comes from memory
  std::int64_t ahead_step;  // bytes of it that are asked for beside a row and a line of the weight
  float bias[2 * kPanelColumns];
  std::int64_t columns;  // of these, that are the weight's
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

// sums [R, C vectors] += the products of unit k of R rows and C vectors of columns.
template <typename P, int R, int C>
SENTCORE_INLINE void add_unit(const typename P::Factor* const* rows, const typename P::Unit* const* vectors,
                              std::int64_t k, Vec<float> (*sums)[C]) {
#pragma GCC unroll 2
  for (int part = 0; part < P::kFactors; ++part) {
    typename P::Column columns[C];
#pragma GCC unroll 4
    for (int j = 0; j < C; ++j) columns[j] = P::column(load(vectors[j] + k * kPanelColumns), part);
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r) {
      const typename P::Factor factor = rows[r][k * P::kFactors + part];
#pragma GCC unroll 4
      for (int j = 0; j < C; ++j) sums[r][j] = P::add(sums[r][j], factor, columns[j]);
    }
  }
}

// sums [R, C vectors] += a [R, depth] * vectors.
template <typename P, typename T, int R, int C>
SENTCORE_INLINE void add_products(const typename P::Factor* a, const Panel<P, T>& panel,
                                  const typename P::Unit* const* vectors, const char* ahead, Vec<float> (*sums)[C]) {
  const typename P::Factor* rows[R];  // a pointer each: an address that is added up takes time from the products
#pragma GCC unroll 12
  for (int r = 0; r < R; ++r) rows[r] = a + r * panel.stride;
  if constexpr (C == kWide && kWide == 3) {
    // What is asked for costs products, so it is asked for apart from them, and once.
    for (std::int64_t k = 0; k < panel.depth;) {
      const std::int64_t end = k + kUnitsAtOnce < panel.depth ? k + kUnitsAtOnce : panel.depth;
      for (const char* line = ahead + k * panel.ahead_step; line < ahead + end * panel.ahead_step; line += 64) {
        __builtin_prefetch(line);
      }
      for (; k < end; ++k) add_unit<P, R, C>(rows, vectors, k, sums);
    }
  } else {
    constexpr int kLines = C * kLanes<float> * 4 / 64;
    for (std::int64_t k = 0; k < panel.depth; ++k) {
#pragma GCC unroll 2
      for (int line = 0; line < kLines; ++line) __builtin_prefetch(ahead + (k * kLines + line) * panel.ahead_step);
      add_unit<P, R, C>(rows, vectors, k, sums);
    }
  }
}

// The panel's columns from `column` on, C vectors, of R rows from `row` on, of which a [R, depth] is the block.
template <typename P, typename T, int R, int C>
SENTCORE_INLINE void multiply_columns(const typename P::Factor* a, const Panel<P, T>& panel,
                                      const typename P::Unit* const* vectors, std::int64_t row, int column) {
  constexpr int L = kLanes<float>;
  float* const before = panel.sums + row * panel.sums_stride + column;
  Vec<float> sums[R][C];
#pragma GCC unroll 12
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int j = 0; j < C; ++j) sums[r][j] = Vec<float>{};
  }
  add_products<P, T, R, C>(a, panel, vectors, panel.ahead + column / 16 * panel.depth * panel.ahead_step, sums);
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
  constexpr int C = SENTCORE_VECTOR_COUNT < 32 && R * kAll <= 12 ? kAll : 2;
  for (int column = 0; column < kPanelColumns && column < panel.columns; column += C * L) {
    const typename P::Unit* vectors[C];
#pragma GCC unroll 8
    for (int j = 0; j < C; ++j) vectors[j] = panel.weight + column + j * L;
    multiply_columns<P, T, R, C>(a, panel, vectors, row, column);
  }
}

// Up to three vectors of columns, as many as the weight has there.
template <typename P, typename T, int R>
inline void multiply_vectors(const typename P::Factor* a, const Panel<P, T>& panel, std::int64_t row) {
  constexpr int L = kLanes<float>;
  if (panel.columns > 2 * L) {
    multiply_columns<P, T, R, 3>(a, panel, panel.vectors, row, 0);
  } else if (panel.columns > L) {
    multiply_columns<P, T, R, 2>(a, panel, panel.vectors, row, 0);
  } else {
    multiply_columns<P, T, R, 1>(a, panel, panel.vectors, row, 0);
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
#if SENTCORE_VECTOR_COUNT >= 32
  static constexpr Product of_wide_rows[] = {
      nullptr,
      multiply_vectors<P, T, 1>,
      multiply_vectors<P, T, 2>,
      multiply_vectors<P, T, 3>,
      multiply_vectors<P, T, 4>,
      multiply_vectors<P, T, 5>,
      multiply_vectors<P, T, 6>,
      multiply_vectors<P, T, 7>,
      multiply_vectors<P, T, 8>,
  };
#endif
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
