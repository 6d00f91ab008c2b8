// A small matrix product in registers, of a few rows with many columns; included by a kernel that for_each_isa.h
// compiles, after simd.inl. A row's sums are the same bits whatever rows are computed beside it.

namespace sentcore {
namespace SENTCORE_ISA {
namespace {

// What is multiplied. Unit: an element of both operands, one step of the depth; Sum: what its products are added in.
template <typename A>
struct Plain {
  typedef A Unit;
  typedef A Sum;
  static constexpr std::int64_t kDepth = 1;  // of a unit
  static SENTCORE_INLINE Vec<A> add(Vec<A> sum, A a, Vec<A> b) { return sum + a * b; }
};

#if SENTCORE_ISA_HAS_BF16
// Two bfloat16, the earlier one in the low half.
struct Pairs {
  typedef std::int32_t Unit;
  typedef float Sum;
  static constexpr std::int64_t kDepth = 2;
  static SENTCORE_INLINE Vec<float> add(Vec<float> sum, std::int32_t a, IntVector b) {
    return (Vec<float>)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_set1_epi32(a), (__m512bh)b);
  }
};
#endif

// The same two where the CPU has no such product: each is widened.
struct WidenedPairs {
  typedef std::int32_t Unit;
  typedef float Sum;
  static constexpr std::int64_t kDepth = 2;
  static SENTCORE_INLINE Vec<float> add(Vec<float> sum, std::int32_t a, IntVector b) {
    const IntVector low = splat_int(a << 16), high = splat_int(a & ~0xffff);
    sum += (Vec<float>)low * (Vec<float>)(b << 16);
    return sum + (Vec<float>)high * (Vec<float>)(b & ~0xffff);
  }
};

// Rows at a time, as many as the registers hold sums for beside two vectors of columns; fewer at the end of a matrix.
constexpr int kRows = SENTCORE_VECTOR_COUNT >= 32 ? 12 : 6;

// c [R, C vectors] = a [R, depth] * b [depth, C vectors], added to c where `accumulate`; strides in elements. Where
// `transposed`, a is [depth, R].
template <typename P, int R, int C, bool accumulate, bool transposed>
SENTCORE_INLINE void multiply_tile(const typename P::Unit* a, std::int64_t a_stride, const typename P::Unit* b,
                                   std::int64_t b_stride, std::int64_t depth, typename P::Sum* c,
                                   std::int64_t c_stride) {
  typedef typename P::Sum Sum;
  constexpr int L = kLanes<Sum>;
  Vec<Sum> sums[R][C];
#pragma GCC unroll 12
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 2
    for (int j = 0; j < C; ++j) sums[r][j] = accumulate ? load(c + r * c_stride + j * L) : Vec<Sum>{};
  }
  for (std::int64_t k = 0; k < depth; ++k) {
    Vec<typename P::Unit> column[C];
#pragma GCC unroll 2
    for (int j = 0; j < C; ++j) column[j] = load(b + k * b_stride + j * L);
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 2
      for (int j = 0; j < C; ++j) {
        sums[r][j] = P::add(sums[r][j], transposed ? a[k * a_stride + r] : a[r * a_stride + k], column[j]);
      }
    }
  }
#pragma GCC unroll 12
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 2
    for (int j = 0; j < C; ++j) store(c + r * c_stride + j * L, sums[r][j]);
  }
}

// The same over any number of columns that is a multiple of a vector's. A function of its own: what the caller keeps in
// registers would leave too few for the sums, and one that waits in memory halves the speed.
template <typename P, int R, bool accumulate, bool transposed>
__attribute__((noinline)) void multiply_rows(const typename P::Unit* a, std::int64_t a_stride,
                                             const typename P::Unit* b, std::int64_t b_stride, std::int64_t depth,
                                             std::int64_t columns, typename P::Sum* c, std::int64_t c_stride) {
  constexpr std::int64_t L = kLanes<typename P::Sum>;
  std::int64_t j = 0;
  for (; j + 2 * L <= columns; j += 2 * L) {
    multiply_tile<P, R, 2, accumulate, transposed>(a, a_stride, b + j, b_stride, depth, c + j, c_stride);
  }
  if (j < columns) {
    multiply_tile<P, R, 1, accumulate, transposed>(a, a_stride, b + j, b_stride, depth, c + j, c_stride);
  }
}

// `rows` of a, up to kRows; rows_of_tile(rows) of a and c are read and written.
SENTCORE_INLINE std::int64_t rows_of_tile(std::int64_t rows) {
  return rows <= kRows / 3 ? kRows / 3 : rows <= kRows / 3 * 2 ? kRows / 3 * 2 : kRows;
}
template <typename P, bool accumulate, bool transposed = false>
SENTCORE_INLINE void multiply(std::int64_t rows, const typename P::Unit* a, std::int64_t a_stride,
                              const typename P::Unit* b, std::int64_t b_stride, std::int64_t depth,
                              std::int64_t columns, typename P::Sum* c, std::int64_t c_stride) {
  if (rows <= kRows / 3) {
    multiply_rows<P, kRows / 3, accumulate, transposed>(a, a_stride, b, b_stride, depth, columns, c, c_stride);
  } else if (rows <= kRows / 3 * 2) {
    multiply_rows<P, kRows / 3 * 2, accumulate, transposed>(a, a_stride, b, b_stride, depth, columns, c, c_stride);
  } else {
    multiply_rows<P, kRows, accumulate, transposed>(a, a_stride, b, b_stride, depth, columns, c, c_stride);
  }
}

// ---- its operands ----

// The transpose of a square of vectors, in place.
template <typename U>
SENTCORE_INLINE void transpose(Vec<U>* rows) {
  constexpr int L = kLanes<U>;
  typedef std::conditional_t<sizeof(U) == 8, std::int64_t, std::int32_t> Index;
#pragma GCC unroll 4
  for (int step = 1; step < L; step *= 2) {
    Vec<Index> low, high;  // of two vectors, whose lanes are counted on: the blocks of `step` lanes that change places
    for (int i = 0; i < L; ++i) {
      low[i] = (i & step) ? L + i - step : i;
      high[i] = (i & step) ? L + i : i + step;
    }
#pragma GCC unroll 16
    for (int i = 0; i < L; ++i) {
      if (i & step) continue;
      const Vec<U> a = rows[i], b = rows[i + step];
      rows[i] = __builtin_shuffle(a, b, low);
      rows[i + step] = __builtin_shuffle(a, b, high);
    }
  }
}

}  // namespace
}  // namespace SENTCORE_ISA
}  // namespace sentcore
