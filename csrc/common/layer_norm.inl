// LayerNorm of a row and its gradient; included after simd.inl and rows.inl. A row is a buffer [H] of row_tasks.h:
// whole vectors may be read and written, and the elements from H on are zero.

namespace sentcore {
namespace SENTCORE_ISA {
namespace {

template <typename A>
struct RowStats {
  A mean, rstd;  // rstd: 1 / sqrt(biased variance + eps)
};

template <typename A>
struct SquaresStep {
  const A* row;
  std::int64_t hidden;
  A mean;
  Slots<A> squares;

  SENTCORE_INLINE void operator()(std::int64_t j, std::int64_t count, int slot) {
    const Vec<A> difference = load(row + j) - mean;
    squares.slot[slot] += first_lanes<A>(difference * difference, count);
  }
};

// `sum` is that of the row's elements.
template <typename A>
SENTCORE_INLINE RowStats<A> stats_of(const A* row, A sum, std::int64_t hidden, double eps) {
  const A count = static_cast<A>(hidden), mean = sum / count;
  SquaresStep<A> step{row, hidden, mean, {}};
  over_row<A>(hidden, step);
  return {mean, A(1) / root_of(step.squares.sum() / count + static_cast<A>(eps))};
}

template <typename T>
struct NormalizeStep {
  using A = cpu::Wide<T>;
  const A* row;
  RowStats<A> stats;
  const A* weight;
  const A* bias;  // or null
  T* out;

  SENTCORE_INLINE void operator()(std::int64_t j, std::int64_t count, int) {
    Vec<A> value = (load(row + j) - stats.mean) * stats.rstd * load(weight + j);
    if (bias != nullptr) value += load(bias + j);
    store_at(out + j, value, count);
  }
};

// out [H] T = the row normalized * weight [H] + bias [H], or null.
template <typename T>
SENTCORE_INLINE void normalize_row(const cpu::Wide<T>* row, RowStats<cpu::Wide<T>> stats, const cpu::Wide<T>* weight,
                                   const cpu::Wide<T>* bias, std::int64_t hidden, T* out) {
  NormalizeStep<T> step{row, stats, weight, bias, out};
  over_row<cpu::Wide<T>>(hidden, step);
}

// ---- backward ----
// n = (value - mean) * rstd and g = grad_out * weight; the gradient of a value is rstd * (g - mean(g) - n * mean(g *
// n)).

template <typename A>
struct GradientMeans {
  A plain, times;  // mean(g), mean(g * n)
};

template <typename T, typename S>
struct GradientSumsStep {
  using A = cpu::Wide<T>;
  const T* grad_out;
  const S* values;
  RowStats<A> stats;
  const A* weight;
  A* normalized;   // becomes n
  A* grad;         // becomes g
  A* grad_weight;  // + grad_out * n
  A* grad_bias;    // + grad_out
  Slots<A> plain, times;

  SENTCORE_INLINE void operator()(std::int64_t j, std::int64_t count, int slot) {
    const Vec<A> from = load_at(grad_out + j, count), n = (load_at(values + j, count) - stats.mean) * stats.rstd;
    const Vec<A> g = from * load(weight + j);
    store(grad_weight + j, load(grad_weight + j) + from * n);
    store(grad_bias + j, load(grad_bias + j) + from);
    store(normalized + j, n);
    store(grad + j, g);
    plain.slot[slot] += g;
    times.slot[slot] += g * n;
  }
};

// The first pass over a row, of which `values` [H] T or A may be `normalized`: grad_out [H] is zero from H on, so that
// no element there reaches a sum.
template <typename T, typename S>
SENTCORE_INLINE GradientMeans<cpu::Wide<T>> sum_gradient(const T* grad_out, const S* values,
                                                         RowStats<cpu::Wide<T>> stats, const cpu::Wide<T>* weight,
                                                         std::int64_t hidden, cpu::Wide<T>* normalized,
                                                         cpu::Wide<T>* grad, cpu::Wide<T>* grad_weight,
                                                         cpu::Wide<T>* grad_bias) {
  using A = cpu::Wide<T>;
  GradientSumsStep<T, S> step{grad_out, values, stats, weight, normalized, grad, grad_weight, grad_bias, {}, {}};
  over_row<A>(hidden, step);
  return {step.plain.sum() / static_cast<A>(hidden), step.times.sum() / static_cast<A>(hidden)};
}

// The second: the gradient of one vector of the row.
template <typename A>
SENTCORE_INLINE Vec<A> gradient_at(const A* grad, const A* normalized, RowStats<A> stats, GradientMeans<A> means) {
  return (load(grad) - means.plain - load(normalized) * means.times) * stats.rstd;
}

// ---- sums over the rows of a group ----

// Copies sums[s] [H], s < count, to this group's slices of partial [count, G, H].
template <typename A>
SENTCORE_INLINE void store_sums(A* const* sums, int count, std::int64_t groups, std::int64_t group, std::int64_t hidden,
                                void* partial) {
  for (int s = 0; s < count; ++s) {
    __builtin_memcpy(static_cast<A*>(partial) + (s * groups + group) * hidden, sums[s],
                     static_cast<std::size_t>(hidden) * sizeof(A));
  }
}
template <typename A>
SENTCORE_INLINE void clear_sums(A* const* sums, int count, std::int64_t hidden) {
  for (int s = 0; s < count; ++s) __builtin_memset(sums[s], 0, static_cast<std::size_t>(hidden) * sizeof(A));
}

}  // namespace
}  // namespace SENTCORE_ISA
}  // namespace sentcore
