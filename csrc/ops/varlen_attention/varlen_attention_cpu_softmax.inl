// Scores to probabilities, a row at a time; included by varlen_attention_cpu_kernel.inl.

namespace sentcore {
namespace SENTCORE_ISA {
namespace {

#if SENTCORE_ISA_HAS_BF16
// 2^x for x <= 0, within 4e-6 of its value: it is rounded to bfloat16 next. 0 below 2^-125: an underflow takes some
// processors more than a hundred cycles.
SENTCORE_INLINE Vec<float> coarse_exp2(Vec<float> x) {
  const __mmask16 normal = _mm512_cmp_ps_mask((__m512)x, (__m512)splat(-125.0f), _CMP_NLT_UQ);
  const Vec<float> n = (Vec<float>)_mm512_roundscale_ps((__m512)x, _MM_FROUND_TO_NEAREST_INT);
  const Vec<float> f = x - n;
  // Interpolates 2^f at the Chebyshev nodes of [-0.5, 0.5].
  Vec<float> p = splat(9.66636852e-3f);
  p = p * f + 5.59219758e-2f;
  p = p * f + 2.40223490e-1f;
  p = p * f + 6.93121045e-1f;
  p = p * f + 1.0f;
  return (Vec<float>)_mm512_maskz_scalef_ps(normal, (__m512)p, (__m512)n);
}

// [columns] float32 -> [columns / 2] pairs of bfloat16; columns is a multiple of a vector's.
SENTCORE_INLINE void narrow_row(const float* values, std::int64_t columns, std::int32_t* pairs) {
  for (std::int64_t j = 0; j < columns; j += 16) {
    const __m256bh narrow = _mm512_cvtneps_pbh(_mm512_loadu_ps(values + j));
    __builtin_memcpy(pairs + j / 2, &narrow, sizeof(narrow));
  }
}
SENTCORE_INLINE void store_probabilities(Vec<float> p, std::int32_t* pairs) {
  const __m256bh narrow = _mm512_cvtneps_pbh((__m512)p);
  __builtin_memcpy(pairs, &narrow, sizeof(narrow));
}
#endif
SENTCORE_INLINE void store_probabilities(Vec<float> p, float* target) { store(target, p); }
SENTCORE_INLINE void store_probabilities(Vec<double> p, double* target) { store(target, p); }

// exp((score - reached) * factor)
template <typename P, typename A>
SENTCORE_INLINE Vec<A> probability(Vec<A> score, A reached, A factor) {
#if SENTCORE_ISA_HAS_BF16
  if constexpr (P::kDepth == 2) {
    const A base2 = factor * 1.44269504088896341f;
    return coarse_exp2(score * base2 - reached * base2);
  }
#endif
  return exp_of((score - splat(reached)) * factor);
}

// scores [count, padded to `width`] become exp(factor * (score - maximum so far)); factor is positive. What was summed
// before, `sums` [size] and `total`, is scaled to that maximum.
template <typename P, typename A>
SENTCORE_INLINE void softmax_row(A* scores, std::int64_t count, std::int64_t width, A factor, A* sums,
                                 std::int64_t size, A& maximum, A& total) {
  constexpr int L = kLanes<A>;
  store(scores + width - L, lanes_before<A>(load(scores + width - L), width - L, count, -__builtin_inff()));
  Vec<A> top = splat(maximum);
  for (std::int64_t j = 0; j < width; j += L) top = larger<A>(top, load(scores + j));
  const A reached = largest_of<A>(top);
  if (reached == -__builtin_inff()) {  // nothing seen yet: exp(-inf - -inf) would be no number
    for (std::int64_t j = 0; j < width; j += L) {
      const Vec<A> score = load(scores + j), kept = score != score ? score : Vec<A>{};
      store(scores + j, kept);
      total += sum_of<A>(kept);
    }
    return;
  }
  Vec<A> sum = {};
  for (std::int64_t j = 0; j < width; j += L) {
    const Vec<A> p = probability<P, A>(load(scores + j), reached, factor);
    store(scores + j, p);
    sum += p;
  }
  if (reached > maximum) {
    if (maximum != -__builtin_inff()) {
      const A scale = exp_of(splat((maximum - reached) * factor))[0];
      for (std::int64_t d = 0; d < size; d += L) store(sums + d, load(sums + d) * scale);
      total *= scale;
    }
    maximum = reached;
  }
  total += sum_of<A>(sum);
}

}  // namespace
}  // namespace SENTCORE_ISA
}  // namespace sentcore
