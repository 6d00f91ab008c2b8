// The activations of feed-forward networks and their derivatives; included after simd.inl. NaN gives NaN.

namespace sentcore {
namespace SENTCORE_ISA {

SENTCORE_INLINE Vec<float> size_of(Vec<float> v) { return (Vec<float>)((IntVector)v & splat_int(0x7fffffff)); }
SENTCORE_INLINE Vec<double> size_of(Vec<double> v) { return v < 0.0 ? -v : v; }

// Phi(x), the normal distribution's function: Phi(-|x|) = exp(p(|x|)), so that the small ones keep their digits where
// 1 + erf(x / sqrt(2)) would cancel. p is log(Phi(-t)) by least squares at 1200 Chebyshev nodes of [0, 6], weighted by
// 1 / (2 + |log(Phi(-t))|) and reweighted until its largest error is least, 7e-10; its last coefficient is negative, so
// that Phi falls to 0 beyond.
SENTCORE_INLINE Vec<float> normal_cdf(Vec<float> x) {
  constexpr float p[13] = {-0.6931471815f,   -0.7978844799f,   -0.3183110118f,   -0.03632948235f,  0.004764811188f,
                           6.629812706e-5f,  -2.443613748e-4f, 7.653302005e-5f,  -1.446446733e-5f, 1.839977569e-6f,
                           -1.545447789e-7f, 7.767591849e-9f,  -1.770569815e-10f};
  const Vec<float> t = size_of(x);
  Vec<float> sum = splat(p[12]);
#pragma GCC unroll 12
  for (int i = 11; i >= 0; --i) sum = sum * t + p[i];
  const Vec<float> tail = exp_of(sum);
  return x > 0.0f ? 1.0f - tail : tail;
}
SENTCORE_INLINE Vec<double> normal_cdf(Vec<double> x) {
  for (int i = 0; i < kLanes<double>; ++i) x[i] = 0.5 * __builtin_erfc(x[i] * -0.70710678118654752440);
  return x;
}

template <typename A>
SENTCORE_INLINE Vec<A> splat_of(double value) {
  return splat(static_cast<A>(value));
}

// x * Phi(x) (Hendrycks and Gimpel 2016).
template <typename A>
SENTCORE_INLINE Vec<A> gelu_erf(Vec<A> x) {
  return x * normal_cdf(x);
}
template <typename A>
SENTCORE_INLINE Vec<A> gelu_erf_grad(Vec<A> x) {
  return normal_cdf(x) + x * splat_of<A>(0.39894228040143267794) * exp_of(x * x * splat_of<A>(-0.5));
}

// 1 / (1 + exp(-x)), and its derivative, which 1 - value would lose where value is nearly 1.
template <typename A>
struct Logistic {
  Vec<A> value, slope;
};
template <typename A>
SENTCORE_INLINE Logistic<A> logistic(Vec<A> x) {
  const Vec<A> e = exp_of(-size_of(x)), one = splat_of<A>(1.0), share = one / (one + e);
  return {x > Vec<A>{} ? share : e * share, e * share * share};
}

// The same paper's approximation, 0.5 * x * (1 + tanh(y)) = x * logistic(2 * y).
template <typename A>
SENTCORE_INLINE Vec<A> gelu_tanh_inner(Vec<A> x) {
  return x * (splat_of<A>(1.5957691216057308) + x * x * splat_of<A>(0.07135481627260025));
}
template <typename A>
SENTCORE_INLINE Vec<A> gelu_tanh(Vec<A> x) {
  return x * logistic<A>(gelu_tanh_inner<A>(x)).value;
}
template <typename A>
SENTCORE_INLINE Vec<A> gelu_tanh_grad(Vec<A> x) {
  const Logistic<A> s = logistic<A>(gelu_tanh_inner<A>(x));
  const Vec<A> inner_slope = splat_of<A>(1.5957691216057308) + x * x * splat_of<A>(0.21406444881780075);
  return s.value + x * s.slope * inner_slope;
}

}  // namespace SENTCORE_ISA
}  // namespace sentcore
