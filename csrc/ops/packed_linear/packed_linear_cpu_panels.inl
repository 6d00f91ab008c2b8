// Products of up to twelve rows with a panel of the weight, or of up to eight with three vectors of columns beside each
// other, on one instruction set.

namespace sentcore {
namespace SENTCORE_ISA {
namespace {

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

}  // namespace
}  // namespace SENTCORE_ISA
}  // namespace sentcore
