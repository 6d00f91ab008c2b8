// Vectors of one instruction set and the products built of them; included by a kernel that for_each_isa.h compiles.

namespace sentcore {
namespace SENTCORE_ISA {

#define SENTCORE_INLINE inline __attribute__((always_inline))

template <typename A>
struct VectorOf {
  typedef A type __attribute__((vector_size(SENTCORE_VECTOR_BYTES)));
};
typedef std::int32_t IntVector __attribute__((vector_size(SENTCORE_VECTOR_BYTES)));
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
template <typename A>
SENTCORE_INLINE Vec<A> larger(Vec<A> a, Vec<A> b) {
  return a > b ? a : b;
}

template <typename A>
SENTCORE_INLINE A sum_of(Vec<A> v) {  // in a fixed order
  A lanes[kLanes<A>];
  store(lanes, v);
  for (int width = kLanes<A> / 2; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) lanes[i] += lanes[i + width];
  }
  return lanes[0];
}
template <typename A>
SENTCORE_INLINE A largest_of(Vec<A> v) {
  A lanes[kLanes<A>];
  store(lanes, v);
  A result = lanes[0];
  for (int i = 1; i < kLanes<A>; ++i) result = lanes[i] > result ? lanes[i] : result;
  return result;
}

// exp of x <= 0 (and a little above): 2^n * e^r with |r| <= ln(2) / 2 and a polynomial for e^r (the coefficients of the
// Cephes library's expf); within 2 units in the last place, and 0 where float32 would be subnormal.
SENTCORE_INLINE Vec<float> exp_of(Vec<float> x) {
  const Vec<float> magic = splat(12582912.0f);  // 1.5 * 2^23: adding it leaves the rounded integer in the low bits
  const Vec<float> bounded = larger<float>(x, splat(-87.0f));
  const Vec<float> shifted = bounded * 1.44269504088896341f + magic;
  const Vec<float> n = shifted - magic;
  const Vec<float> r = (bounded - n * 0.693359375f) + n * 2.12194440e-4f;
  Vec<float> p = splat(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  // The casts of vectors keep their bits.
  const IntVector exponent = (IntVector)shifted << 23;
  const IntVector bits = (IntVector)p + exponent;
  return x < splat(-87.0f) ? Vec<float>{} : (Vec<float>)bits;
}
SENTCORE_INLINE Vec<double> exp_of(Vec<double> x) {
  Vec<double> result;
  for (int i = 0; i < kLanes<double>; ++i) result[i] = __builtin_exp(x[i]);
  return result;
}

// ---- a small matrix product in registers ----

// Rows of a at a time, as many as the registers hold sums for beside two vectors of columns.
constexpr int kRows = SENTCORE_VECTOR_COUNT >= 32 ? 12 : 6;
template <typename A>
constexpr int kColumns = 2 * kLanes<A>;

// c [kRows, C vectors] = a [kRows, depth] * b [depth, C vectors], added to c where `accumulate`; strides in elements.
template <typename A, int C, bool accumulate>
SENTCORE_INLINE void multiply_columns(const A* a, std::int64_t a_stride, const A* b, std::int64_t b_stride,
                                      std::int64_t depth, A* c, std::int64_t c_stride) {
  Vec<A> sums[kRows][C];
#pragma GCC unroll 12
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
    for (int j = 0; j < C; ++j) sums[r][j] = accumulate ? load(c + r * c_stride + j * kLanes<A>) : Vec<A>{};
  }
  for (std::int64_t k = 0; k < depth; ++k) {
    Vec<A> column[C];
#pragma GCC unroll 2
    for (int j = 0; j < C; ++j) column[j] = load(b + k * b_stride + j * kLanes<A>);
#pragma GCC unroll 12
    for (int r = 0; r < kRows; ++r) {
      const Vec<A> factor = splat(a[r * a_stride + k]);
#pragma GCC unroll 2
      for (int j = 0; j < C; ++j) sums[r][j] += factor * column[j];
    }
  }
#pragma GCC unroll 12
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
    for (int j = 0; j < C; ++j) store(c + r * c_stride + j * kLanes<A>, sums[r][j]);
  }
}

// The same over any number of columns that is a multiple of a vector's.
template <typename A, bool accumulate>
inline void multiply(const A* a, std::int64_t a_stride, const A* b, std::int64_t b_stride, std::int64_t depth,
                     std::int64_t columns, A* c, std::int64_t c_stride) {
  std::int64_t j = 0;
  for (; j + kColumns<A> <= columns; j += kColumns<A>) {
    multiply_columns<A, 2, accumulate>(a, a_stride, b + j, b_stride, depth, c + j, c_stride);
  }
  if (j < columns) multiply_columns<A, 1, accumulate>(a, a_stride, b + j, b_stride, depth, c + j, c_stride);
}

}  // namespace SENTCORE_ISA
}  // namespace sentcore
