// Rows of add_layer_norm on one instruction set; add_layer_norm_cpu.cpp compiles it for each.

// clang-format off: in this order
#include "common/simd.inl"
#include "common/rows.inl"
#include "common/layer_norm.inl"
// clang-format on

namespace sentcore {
namespace SENTCORE_ISA {

template <typename Args>
SENTCORE_INLINE Dropout dropout_of(const Args& args) {
  return {static_cast<std::uint64_t>(args.seed[0]), static_cast<std::uint64_t>(args.seed[1]),
          dropout_threshold(args.dropout_p)};
}

// row *= keep * scale for the row that begins at `index` of [T, H]; words [H + 8] is scratch.
template <typename A>
__attribute__((noinline)) void apply_dropout(const Dropout& dropout, A scale, std::uint64_t index, std::int64_t hidden,
                                             std::uint32_t* words, A* row) {
  // Whole draws of four, from the one that holds the row's first element.
  const std::uint64_t first = index / 4;
  const std::int64_t skip = static_cast<std::int64_t>(index % 4), draws = (skip + hidden + 3) / 4;
  for (std::int64_t draw = 0; draw < draws; ++draw) {
    const Random4 random = philox4x32_10(dropout.key, first + static_cast<std::uint64_t>(draw), dropout.offset);
    for (int i = 0; i < 4; ++i) words[draw * 4 + i] = random.word[i];
  }
  for (std::int64_t j = 0; j < hidden; ++j) row[j] = words[skip + j] >= dropout.threshold ? row[j] * scale : A(0);
}

// ---- forward ----

template <typename T>
struct BiasStep {
  using A = cpu::Wide<T>;
  const T* x;       // [H]
  const A* x_bias;  // [H], or null
  A* row;           // [H]

  SENTCORE_INLINE void operator()(std::int64_t j, std::int64_t count, int) {
    Vec<A> value = load_at(x + j, count);
    if (x_bias != nullptr) value += load(x_bias + j);
    store(row + j, value);
  }
};

// The backward reads total as it was saved, so the statistics are of the same rounded values: in a row of nearly equal
// elements rstd is huge, and a difference in rounding alone would become a gradient.
template <typename T, bool dropped>
struct TotalStep {
  using A = cpu::Wide<T>;
  const T* x;         // [H]
  const A* x_bias;    // [H], or null
  const T* residual;  // [H], or null
  T* total;           // [H], or null
  A* row;             // [H]; on entry, where `dropped`, x with its bias
  Slots<A> sums;

  SENTCORE_INLINE void operator()(std::int64_t j, std::int64_t count, int slot) {
    Vec<A> value = dropped ? load(row + j) : load_at(x + j, count);
    if (!dropped && x_bias != nullptr) value += load(x_bias + j);
    if (residual != nullptr) value += load_at(residual + j, count);
    value = rounded<T>(value);
    if (total != nullptr) store_at(total + j, value, count);
    store(row + j, value);
    sums.slot[slot] += value;
  }
};

template <typename T>
struct AddLayerNormRows {
  using A = cpu::Wide<T>;

  template <bool dropped>
  static SENTCORE_INLINE A add(TotalStep<T, dropped> step, std::int64_t hidden) {
    over_row<A>(hidden, step);
    return step.sums.sum();
  }

  static void run(const AddLayerNormForward& args, const AddLayerNormBuffers& buffers, std::int64_t begin,
                  std::int64_t end) {
    const std::int64_t hidden = args.hidden;
    const A* const x_bias = static_cast<const A*>(buffers.x_bias);
    A* const row = static_cast<A*>(buffers.row);
    for (std::int64_t r = begin; r < end; ++r) {
      const T* const x = static_cast<const T*>(args.x) + r * hidden;
      const T* const residual = args.residual == nullptr ? nullptr : static_cast<const T*>(args.residual) + r * hidden;
      T* const total = args.total == nullptr ? nullptr : static_cast<T*>(args.total) + r * hidden;
      A sum;
      if (args.seed == nullptr) {
        sum = add<false>({x, x_bias, residual, total, row, {}}, hidden);
      } else {
        BiasStep<T> bias{x, x_bias, row};
        over_row<A>(hidden, bias);
        apply_dropout(dropout_of(args), static_cast<A>(1.0 / (1.0 - args.dropout_p)),
                      static_cast<std::uint64_t>(r * hidden), hidden, buffers.words, row);
        sum = add<true>({x, x_bias, residual, total, row, {}}, hidden);
      }
      const RowStats<A> stats = stats_of(row, sum, hidden, args.eps);
      if (args.mean != nullptr) {
        static_cast<A*>(args.mean)[r] = stats.mean;
        static_cast<A*>(args.rstd)[r] = stats.rstd;
      }
      normalize_row<T>(row, stats, static_cast<const A*>(buffers.weight), static_cast<const A*>(buffers.norm_bias),
                       hidden, static_cast<T*>(args.out) + r * hidden);
    }
  }
};

// ---- backward ----

template <typename T>
struct GradTotalStep {
  using A = cpu::Wide<T>;
  A* grad;       // [H]
  const A* row;  // [H]
  RowStats<A> stats;
  GradientMeans<A> means;
  const T* grad_total;  // [H], or null
  T* grad_residual;     // [H]

  SENTCORE_INLINE void operator()(std::int64_t j, std::int64_t count, int) {
    Vec<A> value = gradient_at(grad + j, row + j, stats, means);
    if (grad_total != nullptr) value += load_at(grad_total + j, count);
    store(grad + j, value);
    store_at(grad_residual + j, value, count);
  }
};

template <typename T>
struct GradXStep {
  using A = cpu::Wide<T>;
  const A* grad;  // [H]
  T* grad_x;      // [H], or null
  A* sum;         // [H]: + grad

  SENTCORE_INLINE void operator()(std::int64_t j, std::int64_t count, int) {
    const Vec<A> value = load(grad + j);
    if (grad_x != nullptr) store_at(grad_x + j, value, count);
    store(sum + j, load(sum + j) + value);
  }
};

template <typename T>
struct AddLayerNormGroup {
  using A = cpu::Wide<T>;

  static void run(const AddLayerNormBackward& args, const AddLayerNormBuffers& buffers, std::int64_t group) {
    const std::int64_t hidden = args.hidden;
    A* const row = static_cast<A*>(buffers.row);
    A* const grad = static_cast<A*>(buffers.grad);
    A* const sums[3] = {static_cast<A*>(buffers.sums[0]), static_cast<A*>(buffers.sums[1]),
                        static_cast<A*>(buffers.sums[2])};  // for grad_weight, grad_norm_bias, grad_x_bias
    clear_sums<A>(sums, 3, hidden);
    const std::int64_t begin = args.rows * group / args.groups, end = args.rows * (group + 1) / args.groups;
    for (std::int64_t r = begin; r < end; ++r) {
      const std::int64_t at = r * hidden;
      const RowStats<A> stats{static_cast<const A*>(args.mean)[r], static_cast<const A*>(args.rstd)[r]};
      const GradientMeans<A> means =
          sum_gradient<T>(static_cast<const T*>(args.grad_out) + at, static_cast<const T*>(args.total) + at, stats,
                          static_cast<const A*>(buffers.weight), hidden, row, grad, sums[0], sums[1]);
      GradTotalStep<T> step{grad,
                            row,
                            stats,
                            means,
                            args.grad_total == nullptr ? nullptr : static_cast<const T*>(args.grad_total) + at,
                            static_cast<T*>(args.grad_residual) + at};
      over_row<A>(hidden, step);
      if (args.seed != nullptr) {
        apply_dropout(dropout_of(args), static_cast<A>(1.0 / (1.0 - args.dropout_p)), static_cast<std::uint64_t>(at),
                      hidden, buffers.words, grad);
      }
      if (args.seed == nullptr && args.grad_x_bias == nullptr) continue;
      GradXStep<T> last{grad, args.seed == nullptr ? nullptr : static_cast<T*>(args.grad_x) + at, sums[2]};
      over_row<A>(hidden, last);
    }
    store_sums<A>(sums, 3, args.groups, group, hidden, args.partial);
  }
};

inline void run_rows(const AddLayerNormForward& args, const AddLayerNormBuffers& buffers, std::int64_t begin,
                     std::int64_t end) {
  run_for_dtype<AddLayerNormRows>(args.dtype, args, buffers, begin, end);
}
inline void run_group(const AddLayerNormBackward& args, const AddLayerNormBuffers& buffers, std::int64_t group) {
  run_for_dtype<AddLayerNormGroup>(args.dtype, args, buffers, group);
}

}  // namespace SENTCORE_ISA
}  // namespace sentcore
