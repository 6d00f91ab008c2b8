// Rows of x with panels of the weight on one instruction set; packed_linear_cpu.cpp compiles it for each.

// clang-format off: in this order
#include "common/simd.inl"
#include "common/activations.inl"
#include "common/product.inl"
// clang-format on

namespace sentcore {
namespace SENTCORE_ISA {
namespace {

constexpr std::int64_t kAhead =
    32;  // rows of a panel that are asked for ahead: with few tokens the weight comes from memory
constexpr std::int64_t kPadUnits = 16;  // behind a copied row, so that rows do not share cache sets

// Bytes of memory for the rows of a task.
inline std::int64_t memory_of(std::int64_t rows, std::int64_t depth) { return rows * (depth + kPadUnits) * 4 + 64; }

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

// A panel of the weight and what becomes of its products.
template <typename P, typename T>
struct Panel {
  const typename P::Unit* weight;  // [depth, 32]
  std::int64_t depth;              // in units
  float bias[kPanelColumns];
  std::int64_t columns;  // of the 32, that are the weight's
  PackedActivation activation;
  std::int64_t out_stride;
};

template <typename T>
SENTCORE_INLINE Vec<float> activated(PackedActivation activation, Vec<float> x) {
  switch (activation) {
    case PackedActivation::relu:
      return larger<float>(Vec<float>{}, x);  // NaN stays
    case PackedActivation::gelu:
      return gelu_erf<T>(x);
    case PackedActivation::gelu_tanh:
      return gelu_tanh<T>(x);
    default:
      return x;
  }
}

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

// out [R, C vectors of columns from `column` on] = act(a [R, depth] * panel + bias).
template <typename P, typename T, int R, int C>
SENTCORE_INLINE void multiply_columns(const typename P::Factor* a, std::int64_t a_stride, const Panel<P, T>& panel,
                                      int column, T* out) {
  constexpr int L = kLanes<float>;
  const typename P::Unit* weight = panel.weight + column;
  Vec<float> sums[R][C];
#pragma GCC unroll 12
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int j = 0; j < C; ++j) sums[r][j] = Vec<float>{};
  }
  for (std::int64_t k = 0; k < panel.depth; ++k) {
#pragma GCC unroll 4
    for (int j = 0; j < C; ++j) __builtin_prefetch(weight + (k + kAhead) * kPanelColumns + j * L);
#pragma GCC unroll 2
    for (int part = 0; part < P::kFactors; ++part) {
      typename P::Column columns[C];
#pragma GCC unroll 4
      for (int j = 0; j < C; ++j) columns[j] = P::column(load(weight + k * kPanelColumns + j * L), part);
#pragma GCC unroll 12
      for (int r = 0; r < R; ++r) {
        const typename P::Factor factor = a[r * a_stride + k * P::kFactors + part];
#pragma GCC unroll 4
        for (int j = 0; j < C; ++j) sums[r][j] = P::add(sums[r][j], factor, columns[j]);
      }
    }
  }
#pragma GCC unroll 4
  for (int j = 0; j < C; ++j) {
    const Vec<float> bias = load(panel.bias + column + j * L);
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r) sums[r][j] += bias;
  }
  if (panel.activation == PackedActivation::none && column + C * L <= panel.columns) {
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
      for (int j = 0; j < C; ++j) store_narrow(out + r * panel.out_stride + column + j * L, sums[r][j]);
    }
  } else {
    finish_tile<T, R, C>(sums, panel.activation, panel.columns - column, out + column, panel.out_stride);
  }
}

// out [R, 32] = act(a [R, depth] * panel + bias).
template <typename P, typename T, int R>
inline void multiply_panel(const typename P::Factor* a, std::int64_t a_stride, const Panel<P, T>& panel, T* out) {
  constexpr int L = kLanes<float>, kAll = kPanelColumns / L;
  // A few rows read the panel once, in the order in which it comes from memory.
  if constexpr (SENTCORE_VECTOR_COUNT < 32 && R * kAll <= 12) {
    multiply_columns<P, T, R, kAll>(a, a_stride, panel, 0, out);
  } else {
    for (int column = 0; column < kPanelColumns && column < panel.columns; column += 2 * L) {
      multiply_columns<P, T, R, 2>(a, a_stride, panel, column, out);
    }
  }
}

template <typename P, typename T>
struct Products {
  typedef void (*Product)(const typename P::Factor*, std::int64_t, const Panel<P, T>&, T*);
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

inline void widen_row(const cpu::BFloat16* x, std::int64_t depth, float* target) {
  constexpr int L = kLanes<float>;
  std::int64_t k = 0;
  for (; k + L <= depth; k += L) store(target + k, load_wide(x + k));
  for (; k < depth; ++k) target[k] = cpu::widen(x[k]);
}

template <typename P, typename T>
inline void run_rows(const PackedLinear& args, std::int64_t first_row, std::int64_t last_row, std::int64_t first_panel,
                     std::int64_t last_panel, void* memory) {
  typedef typename P::Unit Unit;
  typedef typename P::Factor Factor;
  constexpr std::int64_t kPage = 1024;  // rows at multiples of it would share cache sets
  const std::int64_t count = last_row - first_row, bytes = args.depth * static_cast<std::int64_t>(sizeof(T));
  const T* x = static_cast<const T*>(args.x) + first_row * args.depth;
  const Factor* rows = reinterpret_cast<const Factor*>(x);
  Panel<P, T> panel;
  panel.depth = args.depth / P::kDepth;
  panel.activation = args.activation;
  panel.out_stride = args.columns;
  std::int64_t stride = panel.depth * P::kFactors;
  constexpr bool widened = sizeof(T) < sizeof(Factor) && P::kFactors > 1;
  if (widened || bytes % kPage == 0 || bytes % 4 != 0) {
    stride += kPadUnits;
    for (std::int64_t r = 0; r < count; ++r) {
      Factor* target = static_cast<Factor*>(memory) + r * stride;
      if constexpr (widened) {
        widen_row(x + r * args.depth, args.depth, target);
      } else {
        __builtin_memcpy(target, x + r * args.depth, static_cast<std::size_t>(bytes));
      }
    }
    rows = static_cast<const Factor*>(memory);
  }
  for (std::int64_t p = first_panel; p < last_panel; ++p) {
    const std::int64_t first = p * kPanelColumns;
    panel.weight = static_cast<const Unit*>(args.weight) + first * panel.depth;
    panel.columns = args.columns - first < kPanelColumns ? args.columns - first : kPanelColumns;
    for (std::int64_t j = 0; j < kPanelColumns; ++j) {
      const bool has = args.bias != nullptr && j < panel.columns;
      panel.bias[j] = has ? cpu::widen(static_cast<const T*>(args.bias)[first + j]) : 0.0f;
    }
    T* out = static_cast<T*>(args.out) + first_row * args.columns + first;
    for (std::int64_t r = 0; r < count; r += kRows) {
      const std::int64_t some = count - r < kRows ? count - r : kRows;
      Products<P, T>::of_rows[some](rows + r * stride, stride, panel, out + r * args.columns);
    }
  }
}

inline void run(const PackedLinear& args, std::int64_t first_row, std::int64_t last_row, std::int64_t first_panel,
                std::int64_t last_panel, void* memory) {
  if (args.dtype == Dtype::float32) {
    return run_rows<Floats, float>(args, first_row, last_row, first_panel, last_panel, memory);
  }
  run_rows<BFloats, cpu::BFloat16>(args, first_row, last_row, first_panel, last_panel, memory);
}

}  // namespace
}  // namespace SENTCORE_ISA
}  // namespace sentcore
