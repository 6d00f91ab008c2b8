// Vectors of one instruction set; included by a kernel that for_each_isa.h compiles. These files have no guards, since
// each instruction set reads them anew: a kernel includes what it needs, in order, and they include nothing.

namespace sentcore {
namespace SENTCORE_ISA {
namespace {

#define SENTCORE_INLINE inline __attribute__((always_inline))

template <typename A>
struct VectorOf {
  typedef A type __attribute__((vector_size(SENTCORE_VECTOR_BYTES)));
};
typedef std::int32_t IntVector __attribute__((vector_size(SENTCORE_VECTOR_BYTES)));
typedef std::uint16_t HalfVector __attribute__((vector_size(SENTCORE_VECTOR_BYTES / 2)));  // a half for each float
template <typename A>
using Vec = typename VectorOf<A>::type;
template <typename A>
constexpr int kLanes = SENTCORE_VECTOR_BYTES / static_cast<int>(sizeof(A));

template <typename A>
SENTCORE_INLINE Vec<A> load(const A* p) {
  Vec<A> v;
  __builtin_memcpy(&v, p, sizeof(v));
  return v;
}
template <typename A>
SENTCORE_INLINE void store(A* p, Vec<A> v) {
  __builtin_memcpy(p, &v, sizeof(v));
}
template <typename A>
SENTCORE_INLINE Vec<A> splat(A value) {
  return value - Vec<A>{};
}
SENTCORE_INLINE IntVector splat_int(std::int32_t value) { return value - IntVector{}; }

// Vectors of float32 from and to narrower elements; bfloat16 is rounded to nearest, ties to even.
SENTCORE_INLINE Vec<float> load_wide(const float* p) { return load(p); }
SENTCORE_INLINE Vec<float> load_wide(const cpu::BFloat16* p) {
#if SENTCORE_VECTOR_BYTES == 64  // one instruction, where GCC makes five of a conversion of vectors
  return (Vec<float>)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p)), 16);
#elif SENTCORE_VECTOR_BYTES == 32
  return (Vec<float>)_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)p)), 16);
#else
  HalfVector halves;
  __builtin_memcpy(&halves, p, sizeof(halves));
  return (Vec<float>)(__builtin_convertvector(halves, IntVector) << 16);
#endif
}
SENTCORE_INLINE void store_narrow(float* p, Vec<float> v) { store(p, v); }
SENTCORE_INLINE void store_narrow(cpu::BFloat16* p, Vec<float> v) {
#if SENTCORE_ISA_HAS_BF16
  const __m256bh halves = _mm512_cvtneps_pbh((__m512)v);
#else
  const IntVector bits = (IntVector)v, odd = (bits >> 16) & splat_int(1);
  const IntVector rounded = v == v ? (bits + splat_int(0x7fff) + odd) >> 16 : splat_int(0x7fc0);
  const HalfVector halves = __builtin_convertvector(rounded, HalfVector);
#endif
  __builtin_memcpy(p, &halves, sizeof(halves));
}

// b where one of them is NaN.
template <typename A>
SENTCORE_INLINE Vec<A> larger(Vec<A> a, Vec<A> b) {
#if SENTCORE_VECTOR_BYTES == 64
  if constexpr (sizeof(A) == sizeof(float)) return (Vec<A>)_mm512_max_ps((__m512)a, (__m512)b);
#elif SENTCORE_VECTOR_BYTES == 32
  if constexpr (sizeof(A) == sizeof(float)) return (Vec<A>)_mm256_max_ps((__m256)a, (__m256)b);
#endif
  return a > b ? a : b;
}

// Sums and maxima of all lanes, in a fixed order.
template <typename A>
SENTCORE_INLINE A sum_of(Vec<A> v) {
#if SENTCORE_VECTOR_BYTES == 64
  if constexpr (sizeof(A) == sizeof(float)) return _mm512_reduce_add_ps((__m512)v);
#endif
  A lanes[kLanes<A>];
  store(lanes, v);
  for (int width = kLanes<A> / 2; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) lanes[i] += lanes[i + width];
  }
  return lanes[0];
}
template <typename A>
SENTCORE_INLINE A largest_of(Vec<A> v) {
#if SENTCORE_VECTOR_BYTES == 64
  if constexpr (sizeof(A) == sizeof(float)) return _mm512_reduce_max_ps((__m512)v);
#endif
  A lanes[kLanes<A>];
  store(lanes, v);
  A result = lanes[0];
  for (int i = 1; i < kLanes<A>; ++i) result = lanes[i] > result ? lanes[i] : result;
  return result;
}

// The lanes of v whose place, counted from `first`, is below `end`; `other` in the rest.
template <typename A>
SENTCORE_INLINE Vec<A> lanes_before(Vec<A> v, std::int64_t first, std::int64_t end, A other) {
  constexpr A places[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  if (first + kLanes<A> <= end) return v;
  return load(places) < splat(static_cast<A>(end - first)) ? v : splat(other);
}

// 2^n * e^r with |r| <= ln(2) / 2 and a polynomial for e^r (the coefficients of the Cephes library's expf); within 2
// units in the last place for x <= 0 and a little above, 0 where float32 would be subnormal, NaN for NaN.
SENTCORE_INLINE Vec<float> exp_of(Vec<float> x) {
  const Vec<float> magic = splat(12582912.0f);  // 1.5 * 2^23: adding it leaves the rounded integer in the low bits
  const Vec<float> bounded = larger<float>(splat(-87.5f), x);
  const Vec<float> shifted = bounded * 1.44269504088896341f + magic;
  const Vec<float> n = shifted - magic;
  const Vec<float> r = (bounded - n * 0.693359375f) + n * 2.12194440e-4f;
  Vec<float> p = splat(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + (r + 1.0f);
#if SENTCORE_VECTOR_BYTES == 64
  return (Vec<float>)_mm512_maskz_scalef_ps(_mm512_cmp_ps_mask((__m512)x, (__m512)splat(-87.0f), _CMP_NLT_UQ),
                                            (__m512)p, (__m512)n);
#else
  // The casts of vectors keep their bits. A NaN's would not survive the addition.
  const IntVector bits = (IntVector)p + ((IntVector)shifted << 23);
  return x < splat(-87.0f) ? Vec<float>{} : x == x ? (Vec<float>)bits : x;
#endif
}
SENTCORE_INLINE Vec<double> exp_of(Vec<double> x) {
  Vec<double> result;
  for (int i = 0; i < kLanes<double>; ++i) result[i] = __builtin_exp(x[i]);
  return result;
}

}  // namespace
}  // namespace SENTCORE_ISA
}  // namespace sentcore
