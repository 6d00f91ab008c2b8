// Rows of bias_gelu_layer_norm on one instruction set; bias_gelu_layer_norm_cpu.cpp compiles it for each.

// clang-format off: in this order
#include "common/simd.inl"
#include "common/activations.inl"
#include "common/rows.inl"
#include "common/layer_norm.inl"
// clang-format on

namespace sentcore {
namespace SENTCORE_ISA {
namespace {

// Pads of x and bias are zero, and so is gelu(0).
template <typename T>
struct ActivateStep {
  using A = cpu::Wide<T>;
  const T* x;     // [H]
  const A* bias;  // [H], or null
  A* activated;   // [H]
  A* slope;       // [H]: of gelu there; null in the forward
  Slots<A> sums;

  SENTCORE_INLINE void operator()(std::int64_t j, std::int64_t count, int slot) {
    Vec<A> total = load_at(x + j, count);
    if (bias != nullptr) total += load(bias + j);
    const Vec<A> cdf = normal_cdf<T>(total), value = total * cdf;
    store(activated + j, value);
    if (slope != nullptr) store(slope + j, gelu_erf_grad<T>(total, cdf));
    sums.slot[slot] += value;
  }
};

template <typename T>
struct BiasGeluLayerNormRows {
  using A = cpu::Wide<T>;

  static void run(const BiasGeluLayerNormForward& args, const BiasGeluLayerNormBuffers& buffers, std::int64_t begin,
                  std::int64_t end) {
    A* const row = static_cast<A*>(buffers.row);
    for (std::int64_t r = begin; r < end; ++r) {
      ActivateStep<T> activate{
          static_cast<const T*>(args.x) + r * args.hidden, static_cast<const A*>(buffers.bias), row, nullptr, {}};
      over_row<A>(args.hidden, activate);
      const RowStats<A> stats = stats_of(row, activate.sums.sum(), args.hidden, args.eps);
      normalize_row<T>(row, stats, static_cast<const A*>(buffers.weight), static_cast<const A*>(buffers.norm_bias),
                       args.hidden, static_cast<T*>(args.out) + r * args.hidden);
    }
  }
};

template <typename T>
struct GradXStep {
  using A = cpu::Wide<T>;
  const A* grad;   // [H]
  const A* row;    // [H]
  const A* slope;  // [H]
  RowStats<A> stats;
  GradientMeans<A> means;
  T* grad_x;     // [H]
  A* grad_bias;  // [H]: + grad_x

  SENTCORE_INLINE void operator()(std::int64_t j, std::int64_t count, int) {
    const Vec<A> value = gradient_at(grad + j, row + j, stats, means) * load(slope + j);
    store_at(grad_x + j, value, count);
    store(grad_bias + j, load(grad_bias + j) + value);
  }
};

template <typename T>
struct BiasGeluLayerNormGroup {
  using A = cpu::Wide<T>;

  static void run(const BiasGeluLayerNormBackward& args, const BiasGeluLayerNormBuffers& buffers, std::int64_t group) {
    const std::int64_t begin = args.rows * group / args.groups, end = args.rows * (group + 1) / args.groups;
    const A* const weight = static_cast<const A*>(buffers.weight);
    A* const row = static_cast<A*>(buffers.row);
    A* const slope = static_cast<A*>(buffers.slope);
    A* const grad = static_cast<A*>(buffers.grad);
    A* const sums[3] = {static_cast<A*>(buffers.sums[0]), static_cast<A*>(buffers.sums[1]),
                        static_cast<A*>(buffers.sums[2])};  // for grad_bias, grad_weight, grad_norm_bias
    clear_sums<A>(sums, 3, args.hidden);
    for (std::int64_t r = begin; r < end; ++r) {
      const std::int64_t at = r * args.hidden;
      ActivateStep<T> activate{static_cast<const T*>(args.x) + at, static_cast<const A*>(buffers.bias), row, slope, {}};
      over_row<A>(args.hidden, activate);
      const RowStats<A> stats = stats_of(row, activate.sums.sum(), args.hidden, args.eps);
      const GradientMeans<A> means = sum_gradient<T>(static_cast<const T*>(args.grad_out) + at, row, stats, weight,
                                                     args.hidden, row, grad, sums[1], sums[2]);
      GradXStep<T> step{grad, row, slope, stats, means, static_cast<T*>(args.grad_x) + at, sums[0]};
      over_row<A>(args.hidden, step);
    }
    store_sums<A>(sums, 3, args.groups, group, args.hidden, args.partial);
  }
};

inline void run_rows(const BiasGeluLayerNormForward& args, const BiasGeluLayerNormBuffers& buffers, std::int64_t begin,
                     std::int64_t end) {
  run_for_dtype<BiasGeluLayerNormRows>(args.dtype, args, buffers, begin, end);
}
inline void run_group(const BiasGeluLayerNormBackward& args, const BiasGeluLayerNormBuffers& buffers,
                      std::int64_t group) {
  run_for_dtype<BiasGeluLayerNormGroup>(args.dtype, args, buffers, group);
}

}  // namespace
}  // namespace SENTCORE_ISA
}  // namespace sentcore
