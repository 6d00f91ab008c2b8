// A head of a short sentence, whose scores and outputs stay in registers; included by varlen_attention_cpu_kernel.inl.

namespace sentcore {
namespace SENTCORE_ISA {
namespace {

// Keys of a sentence that is short: four vectors of scores a row.
template <typename P>
constexpr std::int64_t kShort = 4 * kLanes<typename P::Sum>;

// What of a head all its tiles share.
template <typename P>
struct ShortHead {
  const typename P::Unit* keys;    // [units, stride], transposed, zeros up to `columns`
  const typename P::Unit* values;  // [count / kDepth rounded up, width]
  std::int64_t count, columns, units, stride, width, size;
  typename P::Sum factor;
};

// probabilities [R, columns] Units and totals [R] of queries [R, units], before they are divided by their totals.
template <typename P, int R, int C>
SENTCORE_INLINE void short_probabilities(const ShortHead<P>& head, const typename P::Unit* queries,
                                         std::int64_t q_stride, typename P::Unit* probabilities,
                                         typename P::Sum* maxima, typename P::Sum* totals) {
  typedef typename P::Sum A;
  constexpr std::int64_t L = kLanes<A>;
  Vec<A> scores[R][C];
#pragma GCC unroll 12
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int j = 0; j < C; ++j) scores[r][j] = Vec<A>{};
  }
  for (std::int64_t k = 0; k < head.units; ++k) {
    Vec<typename P::Unit> column[C];
#pragma GCC unroll 4
    for (int j = 0; j < C; ++j) column[j] = load(head.keys + k * head.stride + j * L);
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
      for (int j = 0; j < C; ++j) scores[r][j] = P::add(scores[r][j], queries[r * q_stride + k], column[j]);
    }
  }
#pragma GCC unroll 12
  for (int r = 0; r < R; ++r) {
    Vec<A>* const row = scores[r];
    row[C - 1] = lanes_before<A>(row[C - 1], (C - 1) * L, head.count, -__builtin_inff());
    Vec<A> top = row[0];
#pragma GCC unroll 4
    for (int j = 1; j < C; ++j) top = larger<A>(top, row[j]);
    const A reached = largest_of<A>(top);
    const bool nothing = reached == -__builtin_inff();  // all scores overflowed: exp(-inf - -inf) would be no number
    Vec<A> sum = {};
#pragma GCC unroll 4
    for (int j = 0; j < C; ++j) {
      const Vec<A> p = probability<P, A>(row[j], nothing ? A(0) : reached, head.factor);
      sum += p;
      store_probabilities(p, probabilities + r * head.stride + j * L / P::kDepth);
    }
    maxima[r] = reached;
    const A total = sum_of<A>(sum);
    totals[r] = nothing && total == total ? A(0) : total;  // NaN of NaN
  }
}

// out [R, C vectors of the head's size from element d on] = probabilities * values / totals; `rows` of them are
// written.
template <typename P, typename T, int R, int C>
SENTCORE_INLINE void short_outputs(const ShortHead<P>& head, std::int64_t d, const typename P::Unit* probabilities,
                                   const typename P::Sum* totals, std::int64_t rows, T* out, std::int64_t out_stride) {
  typedef typename P::Sum A;
  constexpr std::int64_t L = kLanes<A>;
  const std::int64_t depth = (head.count + P::kDepth - 1) / P::kDepth;
  Vec<A> sums[R][C];
#pragma GCC unroll 12
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 2
    for (int j = 0; j < C; ++j) sums[r][j] = Vec<A>{};
  }
  for (std::int64_t k = 0; k < depth; ++k) {
    Vec<typename P::Unit> column[C];
#pragma GCC unroll 2
    for (int j = 0; j < C; ++j) column[j] = load(head.values + k * head.width + d + j * L);
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 2
      for (int j = 0; j < C; ++j) sums[r][j] = P::add(sums[r][j], probabilities[r * head.stride + k], column[j]);
    }
  }
#pragma GCC unroll 12
  for (int r = 0; r < R; ++r) {
    if (r >= rows) return;
    const A inverse = totals[r] != 0 ? A(1) / totals[r] : A(0);
#pragma GCC unroll 2
    for (int j = 0; j < C; ++j) store_at(out + r * out_stride + d + j * L, sums[r][j] * inverse, head.size - d - j * L);
  }
}

template <typename P, typename T, int R>
SENTCORE_INLINE void short_outputs_of_tile(const ShortHead<P>& head, const typename P::Unit* probabilities,
                                           const typename P::Sum* totals, std::int64_t rows, T* out,
                                           std::int64_t out_stride) {
  constexpr std::int64_t L = kLanes<typename P::Sum>;
  std::int64_t d = 0;
  for (; d + 2 * L <= head.width; d += 2 * L) {
    short_outputs<P, T, R, 2>(head, d, probabilities, totals, rows, out, out_stride);
  }
  if (d < head.width) short_outputs<P, T, R, 1>(head, d, probabilities, totals, rows, out, out_stride);
}

// Functions of their own: what the caller keeps in registers would leave too few for the sums.
template <typename P, typename T, int R, int C>
__attribute__((noinline)) void short_tile(const ShortHead<P>& head, const typename P::Unit* queries,
                                          std::int64_t q_stride, std::int64_t rows, typename P::Unit* probabilities,
                                          typename P::Sum* maxima, typename P::Sum* totals, T* out,
                                          std::int64_t out_stride) {
  constexpr int kFew = C > 2 ? kRows / 3 : R;  // rows whose scores the registers hold
  for (int r = 0; r < R; r += kFew) {
    short_probabilities<P, kFew, C>(head, queries + r * q_stride, q_stride, probabilities + r * head.stride, maxima + r,
                                    totals + r);
  }
  short_outputs_of_tile<P, T, R>(head, probabilities, totals, rows, out, out_stride);
}

template <typename P, typename T, int R, typename... Args>
SENTCORE_INLINE void run_short_tile(const ShortHead<P>& head, const Args&... args) {
  switch (head.columns / kLanes<typename P::Sum>) {
    case 1:
      return short_tile<P, T, R, 1>(head, args...);
    case 2:
      return short_tile<P, T, R, 2>(head, args...);
    case 3:
      return short_tile<P, T, R, 3>(head, args...);
    default:
      return short_tile<P, T, R, 4>(head, args...);
  }
}

}  // namespace
}  // namespace SENTCORE_ISA
}  // namespace sentcore
