// CPU kernels of add_layer_norm; add_layer_norm.h says what each tensor is. The formulas are those of the .cu files.
//
// A row is widened into a buffer that stays in L1 and is passed over several times; each pass is a plain loop that the
// compiler vectorises.

#include <algorithm>
#include <cmath>
#include <vector>

#include "common/cpu.h"
#include "common/philox.cuh"
#include "ops/add_layer_norm/add_layer_norm.h"

namespace sentcore {
namespace {

using cpu::narrow;
using cpu::Wide;
using cpu::widen;

constexpr std::int64_t kElementsPerTask = 1 << 14;  // below, handing work to another thread costs more than it gains
constexpr std::int64_t kRowsPerGroup = 32;
constexpr std::int64_t kMaxGroups = 64;  // not the number of threads: sums must not depend on it
constexpr std::int64_t kColumnsPerTask = 256;

std::int64_t rows_per_task(std::int64_t hidden) { return std::max<std::int64_t>(1, kElementsPerTask / hidden); }

// Buffers of one thread, each of H elements and some room, and H-vectors widened once.
template <typename A>
struct Rows {
  explicit Rows(std::int64_t hidden)
      : a(hidden), b(hidden), weight(hidden), norm_bias(hidden), x_bias(hidden), words(hidden + 8) {}
  std::vector<A> a, b, weight, norm_bias, x_bias;
  std::vector<std::uint32_t> words;
};

template <typename W, typename A>
void widen_vector(const void* source, std::vector<A>& target) {
  if (source == nullptr) return;
  const W* values = static_cast<const W*>(source);
  for (std::size_t j = 0; j < target.size(); ++j) target[j] = widen(values[j]);
}

// row *= keep * scale for the row that begins at `index` of [T, H].
template <typename A>
SENTCORE_HD void apply_dropout(const Dropout& dropout, A scale, std::uint64_t index, std::int64_t hidden,
                               std::uint32_t* words, A* row) {
  // Whole draws of four, from the one that holds the row's first element.
  const std::uint64_t first = index / 4;
  const std::int64_t skip = static_cast<std::int64_t>(index % 4);
  const std::int64_t draws = ceil_div<std::int64_t>(skip + hidden, 4);
  for (std::int64_t draw = 0; draw < draws; ++draw) {
    const Random4 random = philox4x32_10(dropout.key, first + static_cast<std::uint64_t>(draw), dropout.offset);
    for (int i = 0; i < 4; ++i) words[draw * 4 + i] = random.word[i];
  }
  for (std::int64_t j = 0; j < hidden; ++j) row[j] = words[skip + j] >= dropout.threshold ? row[j] * scale : A(0);
}

template <typename Args>
Dropout dropout_of(const Args& args) {
  if (args.seed == nullptr) return {0, 0, 0};
  return {static_cast<std::uint64_t>(args.seed[0]), static_cast<std::uint64_t>(args.seed[1]),
          dropout_threshold(args.dropout_p)};
}

// ---- forward ----

template <typename T>
struct ForwardRows {
  using A = Wide<T>;

  static SENTCORE_HD void run(const AddLayerNormForward& args, Rows<A>* rows, std::int64_t begin, std::int64_t end) {
    const std::int64_t hidden = args.hidden;
    const Dropout dropout = dropout_of(args);
    const A scale = static_cast<A>(1.0 / (1.0 - args.dropout_p));
    A* total = rows->a.data();
    const A* weight = rows->weight.data();
    const A* norm_bias = rows->norm_bias.data();
    const A* x_bias = rows->x_bias.data();
    for (std::int64_t r = begin; r < end; ++r) {
      const T* x = static_cast<const T*>(args.x) + r * hidden;
      T* out = static_cast<T*>(args.out) + r * hidden;
      if (args.x_bias != nullptr) {
        for (std::int64_t j = 0; j < hidden; ++j) total[j] = widen(x[j]) + x_bias[j];
      } else {
        for (std::int64_t j = 0; j < hidden; ++j) total[j] = widen(x[j]);
      }
      if (args.seed != nullptr) {
        apply_dropout(dropout, scale, static_cast<std::uint64_t>(r * hidden), hidden, rows->words.data(), total);
      }
      if (args.residual != nullptr) {
        const T* residual = static_cast<const T*>(args.residual) + r * hidden;
        for (std::int64_t j = 0; j < hidden; ++j) total[j] += widen(residual[j]);
      }
      // The backward reads total as it was saved, so the statistics are of the same rounded values: in a row of nearly
      // equal elements rstd is huge, and a difference in rounding alone would become a gradient.
      if (sizeof(T) < sizeof(A)) {
        for (std::int64_t j = 0; j < hidden; ++j) {
          T rounded;
          narrow(total[j], rounded);
          total[j] = widen(rounded);
        }
      }
      const A mean = cpu::sum_over<A>(hidden, [&](std::int64_t j) { return total[j]; }) / static_cast<A>(hidden);
      const A squares = cpu::sum_over<A>(hidden, [&](std::int64_t j) { return (total[j] - mean) * (total[j] - mean); });
      const A rstd = A(1) / std::sqrt(squares / static_cast<A>(hidden) + static_cast<A>(args.eps));
      if (args.total != nullptr) {
        T* saved = static_cast<T*>(args.total) + r * hidden;
        for (std::int64_t j = 0; j < hidden; ++j) narrow(total[j], saved[j]);
        static_cast<A*>(args.mean)[r] = mean;
        static_cast<A*>(args.rstd)[r] = rstd;
      }
      if (args.norm_bias != nullptr) {
        for (std::int64_t j = 0; j < hidden; ++j) narrow((total[j] - mean) * rstd * weight[j] + norm_bias[j], out[j]);
      } else {
        for (std::int64_t j = 0; j < hidden; ++j) narrow((total[j] - mean) * rstd * weight[j], out[j]);
      }
    }
  }
};

template <typename T, typename W>
void forward(const AddLayerNormForward& args) {
  using A = Wide<T>;
  cpu::parallel_for(args.rows, rows_per_task(args.hidden), [&](std::int64_t begin, std::int64_t end) {
    Rows<A> rows(args.hidden);
    widen_vector<W>(args.weight, rows.weight);
    widen_vector<W>(args.norm_bias, rows.norm_bias);
    widen_vector<W>(args.x_bias, rows.x_bias);
    cpu::run_best<ForwardRows<T>>(args, &rows, begin, end);
  });
}

// ---- backward ----

template <typename T>
struct BackwardGroup {
  using A = Wide<T>;

  static SENTCORE_HD void run(const AddLayerNormBackward& args, Rows<A>* rows, std::int64_t group) {
    const std::int64_t hidden = args.hidden;
    const Dropout dropout = dropout_of(args);
    const A scale = static_cast<A>(1.0 / (1.0 - args.dropout_p));
    A* __restrict grad = rows->a.data();
    A* __restrict normalized = rows->b.data();
    const A* __restrict weight = rows->weight.data();
    A* sums[3];  // of this group, for grad_weight, grad_norm_bias, grad_x_bias
    for (int s = 0; s < 3; ++s) {
      sums[s] = static_cast<A*>(args.partial) + (s * args.groups + group) * hidden;
      std::fill_n(sums[s], hidden, A(0));
    }
    A* __restrict weight_sum = sums[0], * __restrict norm_bias_sum = sums[1], * __restrict x_bias_sum = sums[2];
    const std::int64_t begin = args.rows * group / args.groups, end = args.rows * (group + 1) / args.groups;
    for (std::int64_t r = begin; r < end; ++r) {
      const T* grad_out = static_cast<const T*>(args.grad_out) + r * hidden;
      const T* total = static_cast<const T*>(args.total) + r * hidden;
      T* grad_residual = static_cast<T*>(args.grad_residual) + r * hidden;
      const A mean = static_cast<const A*>(args.mean)[r], rstd = static_cast<const A*>(args.rstd)[r];
      for (std::int64_t j = 0; j < hidden; ++j) {
        const A g = widen(grad_out[j]);
        const A n = (widen(total[j]) - mean) * rstd;
        weight_sum[j] += g * n;
        norm_bias_sum[j] += g;
        grad[j] = g * weight[j];
        normalized[j] = n;
      }
      const A count = static_cast<A>(hidden);
      const A mean_g = cpu::sum_over<A>(hidden, [&](std::int64_t j) { return grad[j]; }) / count;
      const A mean_gn = cpu::sum_over<A>(hidden, [&](std::int64_t j) { return grad[j] * normalized[j]; }) / count;
      for (std::int64_t j = 0; j < hidden; ++j) grad[j] = (grad[j] - mean_g - normalized[j] * mean_gn) * rstd;
      if (args.grad_total != nullptr) {
        const T* grad_total = static_cast<const T*>(args.grad_total) + r * hidden;
        for (std::int64_t j = 0; j < hidden; ++j) grad[j] += widen(grad_total[j]);
      }
      for (std::int64_t j = 0; j < hidden; ++j) narrow(grad[j], grad_residual[j]);
      if (args.seed != nullptr) {
        T* grad_x = static_cast<T*>(args.grad_x) + r * hidden;
        apply_dropout(dropout, scale, static_cast<std::uint64_t>(r * hidden), hidden, rows->words.data(), grad);
        for (std::int64_t j = 0; j < hidden; ++j) narrow(grad[j], grad_x[j]);
      }
      if (args.grad_x_bias == nullptr) continue;
      for (std::int64_t j = 0; j < hidden; ++j) x_bias_sum[j] += grad[j];
    }
  }
};

// Adds the groups' sums of the columns [begin, end), in the order of the groups.
template <typename W, typename A>
void add_groups(const AddLayerNormBackward& args, std::int64_t begin, std::int64_t end) {
  void* const outputs[3] = {args.grad_weight, args.grad_norm_bias, args.grad_x_bias};
  std::vector<A> sum(static_cast<std::size_t>(end - begin));
  for (int s = 0; s < 3; ++s) {
    if (outputs[s] == nullptr) continue;
    std::fill(sum.begin(), sum.end(), A(0));
    for (std::int64_t group = 0; group < args.groups; ++group) {
      const A* partial = static_cast<const A*>(args.partial) + (s * args.groups + group) * args.hidden + begin;
      for (std::int64_t j = 0; j < end - begin; ++j) sum[j] += partial[j];
    }
    W* output = static_cast<W*>(outputs[s]) + begin;
    for (std::int64_t j = 0; j < end - begin; ++j) narrow(sum[j], output[j]);
  }
}

template <typename T, typename W>
void backward(const AddLayerNormBackward& args) {
  using A = Wide<T>;
  cpu::parallel_for(args.groups, 1, [&](std::int64_t begin, std::int64_t end) {
    Rows<A> rows(args.hidden);
    widen_vector<W>(args.weight, rows.weight);
    for (std::int64_t group = begin; group < end; ++group) cpu::run_best<BackwardGroup<T>>(args, &rows, group);
  });
  cpu::parallel_for(args.hidden, kColumnsPerTask,
                    [&](std::int64_t begin, std::int64_t end) { add_groups<W, A>(args, begin, end); });
}

// ---- dtypes ----

template <typename T>
struct TypeOf {
  using type = T;
};

// Calls run(TypeOf<T>, TypeOf<W>) for the dtype of [T, H] and of [H].
template <typename Run>
void for_dtypes(Dtype dtype, Dtype weight_dtype, const Run& run) {
  const bool same = weight_dtype == dtype;
  switch (dtype) {
    case Dtype::float32:
      return run(TypeOf<float>{}, TypeOf<float>{});
    case Dtype::float64:
      return run(TypeOf<double>{}, TypeOf<double>{});
    case Dtype::bfloat16:
      return same ? run(TypeOf<cpu::BFloat16>{}, TypeOf<cpu::BFloat16>{})
                  : run(TypeOf<cpu::BFloat16>{}, TypeOf<float>{});
    case Dtype::float16:
      return same ? run(TypeOf<cpu::Float16>{}, TypeOf<cpu::Float16>{}) : run(TypeOf<cpu::Float16>{}, TypeOf<float>{});
  }
}

}  // namespace

std::int64_t add_layer_norm_groups_cpu(std::int64_t rows) {
  return std::min(kMaxGroups, ceil_div(rows, kRowsPerGroup));
}

void add_layer_norm_forward_cpu(const AddLayerNormForward& args) {
  for_dtypes(args.dtype, args.weight_dtype, [&](auto element, auto weight) {
    forward<typename decltype(element)::type, typename decltype(weight)::type>(args);
  });
}

void add_layer_norm_backward_cpu(const AddLayerNormBackward& args) {
  for_dtypes(args.dtype, args.weight_dtype, [&](auto element, auto weight) {
    backward<typename decltype(element)::type, typename decltype(weight)::type>(args);
  });
}

}  // namespace sentcore
