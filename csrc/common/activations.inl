// The activations of feed-forward networks and their derivatives; included after simd.inl. What is of type T is
// computed in Wide<T>; of 16 bits, to a relative error of about 1e-5, which their rounding hides. NaN gives NaN.

namespace sentcore {
namespace SENTCORE_ISA {
namespace {

SENTCORE_INLINE Vec<float> size_of(Vec<float> v) { return (Vec<float>)((IntVector)v & splat_int(0x7fffffff)); }
SENTCORE_INLINE Vec<double> size_of(Vec<double> v) { return v < 0.0 ? -v : v; }

template <int count>
SENTCORE_INLINE Vec<float> polynomial(const float (&coefficients)[count], Vec<float> x) {
  Vec<float> sum = splat(coefficients[count - 1]);
#pragma GCC unroll 12
  for (int i = count - 2; i >= 0; --i) sum = sum * x + coefficients[i];
  return sum;
}

// 2^x for x <= 0, and 0 where that would be subnormal (or subnormal itself). Of what is above the next lower integer,
// by the polynomial of least relative error over [0, 1] (as below, weighted by 2^-x): 2.6e-6 of degree 4, 1.9e-9 of 6.
template <typename T>
SENTCORE_INLINE Vec<cpu::Wide<T>> exp2_of(Vec<cpu::Wide<T>> x) {
  if constexpr (sizeof(T) == sizeof(double)) {
    for (int i = 0; i < kLanes<double>; ++i) x[i] = __builtin_exp2(x[i]);
    return x;
  } else {
    constexpr float coarse[5] = {1.00000259f, 0.693003835f, 0.241442756f, 0.0520114618f, 0.0135341673f};
    constexpr float fine[7] = {1.0f,           0.693146984f,   0.240229836f,   0.055483342f,
                               0.00967884096f, 0.00124396881f, 0.000217022544f};
#if SENTCORE_VECTOR_BYTES == 64
    const Vec<float> rest = (Vec<float>)_mm512_reduce_ps((__m512)x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
    const Vec<float> power = sizeof(T) == 2 ? polynomial(coarse, rest) : polynomial(fine, rest);
    // Masked: an underflow takes some processors more than a hundred cycles, even to 0.
    const __mmask16 normal = _mm512_cmp_ps_mask((__m512)x, (__m512)splat(-126.0f), _CMP_NLT_UQ);
    return (Vec<float>)_mm512_maskz_scalef_ps(normal, (__m512)power, (__m512)x);
#else
    const Vec<float> magic = splat(12582912.0f);  // 1.5 * 2^23: adding it leaves the rounded integer in the low bits
    const Vec<float> bounded = larger<float>(splat(-126.0f), x), shifted = (bounded - 0.5f) + magic;
    const Vec<float> rest = bounded - (shifted - magic);
    const Vec<float> power = sizeof(T) == 2 ? polynomial(coarse, rest) : polynomial(fine, rest);
    return x < splat(-126.0f) ? Vec<float>{} : (Vec<float>)((IntVector)power + ((IntVector)shifted << 23));
#endif
  }
}

// Phi(x), the normal distribution's function: Phi(-|x|) = 2^p(|x|), so that small ones keep their digits where
// 1 + erf(x / sqrt(2)) would cancel. p is log2(Phi(-t)) by least squares at 1200 Chebyshev nodes of [0, 8] or [0, 6],
// weighted by 1 / (2 + |log2(Phi(-t))|) and reweighted until its largest error is least; that is 1.7e-6 or 3e-10 with
// the weight. The last coefficients are negative: beyond, Phi falls to 0.
template <typename T>
SENTCORE_INLINE Vec<cpu::Wide<T>> normal_cdf(Vec<cpu::Wide<T>> x) {
  if constexpr (sizeof(T) == sizeof(double)) {
    for (int i = 0; i < kLanes<double>; ++i) x[i] = 0.5 * __builtin_erfc(x[i] * -0.70710678118654752440);
    return x;
  } else {
    constexpr float coarse[8] = {-1.00000756f,   -1.15106514f,     -0.458987588f,   -0.053408646f,
                                 0.00823658427f, -0.000863469481f, 5.35371694e-05f, -1.46017666e-06f};
    constexpr float fine[13] = {-1.0f,
                                -1.15110399f,
                                -0.459225661f,
                                -0.0524125881f,
                                0.00687461018f,
                                9.51472055e-05f,
                                -0.000352184592f,
                                0.000110251255f,
                                -2.08187224e-05f,
                                2.6448447e-06f,
                                -2.21762105e-07f,
                                1.11217239e-08f,
                                -2.52850875e-10f};
    const Vec<float> t = size_of(x);
    const Vec<float> tail = exp2_of<T>(sizeof(T) == 2 ? polynomial(coarse, t) : polynomial(fine, t));
    return x > 0.0f ? 1.0f - tail : tail;
  }
}

// x * Phi(x) (Hendrycks and Gimpel 2016).
template <typename T>
SENTCORE_INLINE Vec<cpu::Wide<T>> gelu_erf(Vec<cpu::Wide<T>> x) {
  return x * normal_cdf<T>(x);
}
template <typename T>
SENTCORE_INLINE Vec<cpu::Wide<T>> gelu_erf_grad(Vec<cpu::Wide<T>> x, Vec<cpu::Wide<T>> cdf) {  // cdf: Phi(x)
  using A = cpu::Wide<T>;
  return cdf + x * A(0.39894228040143267794) * exp2_of<T>(x * x * A(-0.72134752044448170));  // exp(-x^2 / 2)
}

// 1 / (1 + 2^-x), and its derivative by x / log2(e), which 1 - value would lose where value is nearly 1.
template <typename T>
struct Logistic {
  Vec<cpu::Wide<T>> value, slope;
};
template <typename T>
SENTCORE_INLINE Logistic<T> logistic2(Vec<cpu::Wide<T>> x) {
  using A = cpu::Wide<T>;
  const Vec<A> e = exp2_of<T>(-size_of(x)), share = A(1) / (A(1) + e);
  return {x > A(0) ? share : e * share, e * share * share};
}

// exp(-t) for t >= 0. A float32 product by log2(e) loses about t / 2 units in the last place: what it lost is put back.
// Its upper 12 bits times the 9 of 355 / 512, nearly log(2), are exact.
template <typename T>
SENTCORE_INLINE Vec<cpu::Wide<T>> exp_of_minus(Vec<cpu::Wide<T>> t) {
  using A = cpu::Wide<T>;
  if constexpr (sizeof(T) == sizeof(float)) {
    const Vec<float> bounded = t > 104.0f ? splat(104.0f) : t;  // beyond it is 0; of infinity no remainder is left
    const Vec<float> power = bounded * 1.44269504f;
    const Vec<float> upper = (Vec<float>)((IntVector)power & splat_int(~0xfff));
    const Vec<float> lost =
        (bounded - upper * 0.693359375f) - (upper * -2.12194440e-4f + (power - upper) * 0.693147181f);
    const Vec<float> value = exp2_of<T>(-power);
    return value - value * lost;
  } else {
    return exp2_of<T>(t * A(-1.4426950408889634));
  }
}

// x / (1 + exp(-x)) (Hendrycks and Gimpel 2016).
template <typename T>
SENTCORE_INLINE Vec<cpu::Wide<T>> silu(Vec<cpu::Wide<T>> x) {
  using A = cpu::Wide<T>;
  const Vec<A> e = exp_of_minus<T>(size_of(x)), share = A(1) / (A(1) + e);
  return x * (x > A(0) ? share : e * share);
}

// The same paper's approximation, 0.5 * x * (1 + tanh(y)) = x / (1 + exp(-2 * y)), y = sqrt(2 / pi) * (x + 0.044715
// x^3).
template <typename T>
SENTCORE_INLINE Vec<cpu::Wide<T>> gelu_tanh_power(Vec<cpu::Wide<T>> x) {  // 2 * y * log2(e)
  using A = cpu::Wide<T>;
  return x * (A(2.3022081981443252) + x * x * A(0.10294323958002349));
}
template <typename T>
SENTCORE_INLINE Vec<cpu::Wide<T>> gelu_tanh(Vec<cpu::Wide<T>> x) {
  return x * logistic2<T>(gelu_tanh_power<T>(x)).value;
}
template <typename T>
SENTCORE_INLINE Vec<cpu::Wide<T>> gelu_tanh_grad(Vec<cpu::Wide<T>> x) {
  using A = cpu::Wide<T>;
  const Logistic<T> s = logistic2<T>(gelu_tanh_power<T>(x));
  return s.value + x * s.slope * (A(1.5957691216057308) + x * x * A(0.21406444881780075));
}

}  // namespace
}  // namespace SENTCORE_ISA
}  // namespace sentcore
