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

// values [R, two vectors], activated, to columns [first, first + two vectors) of out.
template <typename T, int R>
inline void finish_tile(const Vec<float> (*values)[2], PackedActivation activation, std::int64_t columns, T* out,
                        std::int64_t out_stride) {
  constexpr int L = kLanes<float>;
  for (int r = 0; r < R; ++r) {
    for (int j = 0; j < 2; ++j) {
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

// out [R, 32] = act(a [R, depth] * panel + bias).
template <typename P, typename T, int R>
inline void multiply_panel(const typename P::Unit* a, std::int64_t a_stride, const Panel<P, T>& panel, T* out) {
  constexpr int L = kLanes<float>;
  for (int column = 0; column < kPanelColumns && column < panel.columns; column += 2 * L) {
    const typename P::Unit* weight = panel.weight + column;
    Vec<float> sums[R][2];
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r) sums[r][0] = sums[r][1] = Vec<float>{};
    for (std::int64_t k = 0; k < panel.depth; ++k) {
      const Vec<typename P::Unit> low = load(weight + k * kPanelColumns), high = load(weight + k * kPanelColumns + L);
      __builtin_prefetch(weight + (k + kAhead) * kPanelColumns);
      __builtin_prefetch(weight + (k + kAhead) * kPanelColumns + L);
#pragma GCC unroll 12
      for (int r = 0; r < R; ++r) {
        const typename P::Unit factor = a[r * a_stride + k];
        sums[r][0] = P::add(sums[r][0], factor, low);
        sums[r][1] = P::add(sums[r][1], factor, high);
      }
    }
    const Vec<float> low_bias = load(panel.bias + column), high_bias = load(panel.bias + column + L);
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r) sums[r][0] += low_bias, sums[r][1] += high_bias;
    if (panel.activation == PackedActivation::none && column + 2 * L <= panel.columns) {
#pragma GCC unroll 12
      for (int r = 0; r < R; ++r) {
        store_narrow(out + r * panel.out_stride + column, sums[r][0]);
        store_narrow(out + r * panel.out_stride + column + L, sums[r][1]);
      }
    } else {
      finish_tile<T, R>(sums, panel.activation, panel.columns - column, out + column, panel.out_stride);
    }
  }
}

template <typename P, typename T>
struct Products {
  typedef void (*Product)(const typename P::Unit*, std::int64_t, const Panel<P, T>&, T*);
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

template <typename P, typename T>
inline void run_rows(const PackedLinear& args, std::int64_t first_row, std::int64_t last_row, std::int64_t first_panel,
                     std::int64_t last_panel, void* memory) {
  typedef typename P::Unit Unit;
  constexpr std::int64_t kPage = 1024;  // rows at multiples of it would share cache sets
  const std::int64_t count = last_row - first_row, bytes = args.depth * static_cast<std::int64_t>(sizeof(T));
  const T* x = static_cast<const T*>(args.x) + first_row * args.depth;
  const Unit* rows = reinterpret_cast<const Unit*>(x);
  Panel<P, T> panel;
  panel.depth = args.depth / P::kDepth;
  panel.activation = args.activation;
  panel.out_stride = args.columns;
  std::int64_t stride = panel.depth;
  if (bytes % kPage == 0 || bytes % 4 != 0) {
    stride += kPadUnits;
    for (std::int64_t r = 0; r < count; ++r) {
      __builtin_memcpy(static_cast<Unit*>(memory) + r * stride, x + r * args.depth, static_cast<std::size_t>(bytes));
    }
    rows = static_cast<const Unit*>(memory);
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
    return run_rows<Plain<float>, float>(args, first_row, last_row, first_panel, last_panel, memory);
  }
#if SENTCORE_ISA_HAS_BF16
  run_rows<Pairs, cpu::BFloat16>(args, first_row, last_row, first_panel, last_panel, memory);
#else
  run_rows<WidenedPairs, cpu::BFloat16>(args, first_row, last_row, first_panel, last_panel, memory);
#endif
}

}  // namespace
}  // namespace SENTCORE_ISA
}  // namespace sentcore
