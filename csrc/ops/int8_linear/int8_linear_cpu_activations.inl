// What follows a product; included by int8_linear_cpu_kernel.inl.

namespace sentcore {
namespace SENTCORE_ISA {
namespace {

// x * (1/2 + x P(x^2)) with x bounded in the bracket: within 1.7e-4 of x * Phi(x), for results that are rounded to
// bfloat16 and then to 8 bits. P's coefficients minimise the largest difference; beyond the bound it is x or 0.
SENTCORE_INLINE Vec<float> coarse_gelu(Vec<float> x, float bound, const float (&p)[7]) {
  const Vec<float> bounded = larger<float>(splat(-bound), -larger<float>(splat(-bound), -x));
  const Vec<float> square = bounded * bounded;
  Vec<float> sum = splat(p[6]);
#pragma GCC unroll 6
  for (int i = 5; i >= 0; --i) sum = sum * square + p[i];
  return x * (bounded * sum + 0.5f);
}

constexpr float kErfBound = 3.95f, kTanhBound = 3.85f;
constexpr float kErf[7] = {3.97986680e-01f, -6.47227466e-02f, 8.84291809e-03f, -8.29039374e-04f,
                           4.95519416e-05f, -1.68115253e-06f, 2.44357796e-08f};
constexpr float kTanh[7] = {3.98063123e-01f, -6.51153624e-02f, 9.06914938e-03f, -8.79122934e-04f,
                            5.48835415e-05f, -1.95593589e-06f, 2.99434788e-08f};

// The same within 2e-7, for float32: erf after Abramowitz and Stegun 7.1.26, and tanh by exp.
SENTCORE_INLINE Vec<float> fine_gelu_erf(Vec<float> x) {
  const Vec<float> size = (Vec<float>)((IntVector)x & splat_int(0x7fffffff)) * 0.70710678118654752f;
  const Vec<float> t = 1.0f / (1.0f + 0.3275911f * size);
  const Vec<float> p =
      ((((1.061405429f * t - 1.453152027f) * t + 1.421413741f) * t - 0.284496736f) * t + 0.254829592f) * t;
  const Vec<float> tail = 0.5f * p * exp_of(-size * size);  // Phi(-|x|)
  return x * (x > 0.0f ? 1.0f - tail : tail);
}
SENTCORE_INLINE Vec<float> fine_gelu_tanh(Vec<float> x) {
  const Vec<float> inner = 1.5957691216057308f * (x + 0.044715f * x * x * x);
  const Vec<float> e = exp_of(-(Vec<float>)((IntVector)inner & splat_int(0x7fffffff)));
  return x * (inner > 0.0f ? 1.0f / (1.0f + e) : e / (1.0f + e));
}

template <Int8Activation activation, typename T>
SENTCORE_INLINE Vec<float> activated(Vec<float> x) {
  constexpr bool coarse = sizeof(T) < sizeof(float);
  if constexpr (activation == Int8Activation::relu) return larger<float>(Vec<float>{}, x);  // NaN stays
  if constexpr (activation == Int8Activation::gelu) return coarse ? coarse_gelu(x, kErfBound, kErf) : fine_gelu_erf(x);
  if constexpr (activation == Int8Activation::gelu_tanh) {
    return coarse ? coarse_gelu(x, kTanhBound, kTanh) : fine_gelu_tanh(x);
  }
  return x;
}

}  // namespace
}  // namespace SENTCORE_ISA
}  // namespace sentcore
