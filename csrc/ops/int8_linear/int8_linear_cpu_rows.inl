// Rows of x to 8 bits; included by int8_linear_cpu_kernel.inl.

namespace sentcore {
namespace SENTCORE_ISA {
namespace {

// What one step of the depth, 4 inputs, takes of a rounded row: 4 bytes, or where bytes cannot be multiplied, inputs 0
// and 2 and then inputs 1 and 3 as halves.
constexpr int kWords = SENTCORE_ISA_HAS_VNNI ? 1 : 2;

// The rounded rows of one task and what belongs to them.
struct Int8Rows {
  std::int32_t* words;  // [rows, width], a row at each multiple of the stride
  std::int64_t width;   // steps of the depth * kWords
  std::int64_t stride;
  float* scales;         // [rows]: max|x| / 127, NaN where x holds NaN or infinity
  std::int32_t* sums;    // [rows]: 128 * sum of the rounded x
  float* apart;          // [rows]: the element that is kept as it is, or 0
  std::int32_t* places;  // [rows]: its column
};

// Bytes of what belongs to `rows` rows beside their words, and where the words begin behind it in `memory`.
SENTCORE_INLINE std::int64_t beside_words(std::int64_t rows) { return rows * 4 * 4; }
SENTCORE_INLINE void cut_beside_words(Int8Rows& rows, std::int64_t count, void* memory) {
  rows.scales = static_cast<float*>(memory);
  rows.sums = reinterpret_cast<std::int32_t*>(rows.scales + count);
  rows.apart = reinterpret_cast<float*>(rows.sums + count);
  rows.places = reinterpret_cast<std::int32_t*>(rows.apart + count);
}

SENTCORE_INLINE std::int64_t steps_of(std::int64_t depth) { return (depth + kInt8Depth - 1) / kInt8Depth; }

SENTCORE_INLINE IntVector round_of(Vec<float> v) {  // to nearest, ties to even
#if SENTCORE_VECTOR_BYTES == 64
  return (IntVector)_mm512_cvtps_epi32((__m512)v);
#elif SENTCORE_VECTOR_BYTES == 32
  return (IntVector)_mm256_cvtps_epi32((__m256)v);
#elif defined(__SSE2__)
  return (IntVector)_mm_cvtps_epi32((__m128)v);
#else
  IntVector result;
  for (int i = 0; i < kLanes<float>; ++i) result[i] = static_cast<std::int32_t>(__builtin_lrintf(v[i]));
  return result;
#endif
}

SENTCORE_INLINE Vec<float> sizes_of(Vec<float> v) { return (Vec<float>)((IntVector)v & splat_int(0x7fffffff)); }

// Four lanes of rounded x at a time into words; `words` has room for a vector.
SENTCORE_INLINE void store_words(std::int32_t* words, IntVector rounded) {
#if SENTCORE_ISA_HAS_VNNI
  const __m128i bytes = _mm512_cvtepi32_epi8((__m512i)rounded);
  __builtin_memcpy(words, &bytes, sizeof(bytes));
#else
  constexpr int L = kLanes<float>;
  IntVector behind, both;  // in every four lanes: the last two; then of all the first two, one after the other
  for (int i = 0; i < L; ++i) {
    behind[i] = i / 4 * 4 + 2 + i % 2;
    both[i] = i % (L / 2) / 2 * 4 + i % 2;
  }
  const IntVector halves = (rounded & splat_int(0xffff)) | (__builtin_shuffle(rounded, behind) << 16);
  const IntVector packed = __builtin_shuffle(halves, both);
  __builtin_memcpy(words, &packed, sizeof(packed) / 2);
#endif
}

// ---- lanes of non-negative integers ----

SENTCORE_INLINE std::int32_t largest_lane(Vec<std::int16_t> v) {
#if SENTCORE_VECTOR_BYTES >= 32
#if SENTCORE_VECTOR_BYTES == 64
  const __m256i half = _mm256_max_epi16(_mm512_castsi512_si256((__m512i)v), _mm512_extracti64x4_epi64((__m512i)v, 1));
#else
  const __m256i half = (__m256i)v;
#endif
  const __m128i quarter = _mm_max_epi16(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
  return 0x7fff - _mm_extract_epi16(_mm_minpos_epu16(_mm_sub_epi16(_mm_set1_epi16(0x7fff), quarter)), 0);
#else
  std::int32_t largest = 0;
  for (int i = 0; i < kLanes<std::int16_t>; ++i) largest = v[i] > largest ? v[i] : largest;
  return largest;
#endif
}
SENTCORE_INLINE std::int32_t largest_lane(IntVector v) {
#if SENTCORE_VECTOR_BYTES == 64
  return _mm512_reduce_max_epi32((__m512i)v);
#else
  std::int32_t largest = 0;
  for (int i = 0; i < kLanes<std::int32_t>; ++i) largest = v[i] > largest ? v[i] : largest;
  return largest;
#endif
}

// Whether two lanes or more are at least `least`.
SENTCORE_INLINE bool two_lanes_from(Vec<std::int16_t> v, std::int32_t least) {
#if SENTCORE_VECTOR_BYTES == 64
  return __builtin_popcount(_mm512_cmpge_epi16_mask((__m512i)v, _mm512_set1_epi16(static_cast<short>(least)))) > 1;
#elif SENTCORE_VECTOR_BYTES == 32
  const __m256i below = _mm256_cmpgt_epi16(_mm256_set1_epi16(static_cast<short>(least)), (__m256i)v);
  return __builtin_popcount(static_cast<unsigned>(_mm256_movemask_epi8(below))) < 30;  // two bits a lane
#else
  int count = 0;
  for (int i = 0; i < kLanes<std::int16_t>; ++i) count += v[i] >= least;
  return count > 1;
#endif
}
SENTCORE_INLINE bool two_lanes_from(IntVector v, std::int32_t least) {
#if SENTCORE_VECTOR_BYTES == 64
  return __builtin_popcount(_mm512_cmpge_epi32_mask((__m512i)v, _mm512_set1_epi32(least))) > 1;
#else
  int count = 0;
  for (int i = 0; i < kLanes<std::int32_t>; ++i) count += v[i] >= least;
  return count > 1;
#endif
}

SENTCORE_INLINE std::int32_t total_of(IntVector v) {
#if SENTCORE_VECTOR_BYTES == 64
  return _mm512_reduce_add_epi32((__m512i)v);
#else
  std::int32_t total = 0;
  for (int i = 0; i < kLanes<std::int32_t>; ++i) total += v[i];
  return total;
#endif
}

// ---- what a row is rounded by ----

// The bits of a size, as integers, come in the order of the sizes; those of infinity and NaN come last.
template <typename T>
struct Bits;
template <>
struct Bits<float> {
  typedef std::int32_t Lane;
  static constexpr Lane kSize = 0x7fffffff, kInfinity = 0x7f800000;
  static SENTCORE_INLINE Lane of(float size) {
    Lane bits;
    __builtin_memcpy(&bits, &size, sizeof(bits));
    return bits;
  }
  static SENTCORE_INLINE float size(std::int32_t bits) {
    float size;
    __builtin_memcpy(&size, &bits, sizeof(size));
    return size;
  }
};
template <>
struct Bits<cpu::BFloat16> {
  typedef std::int16_t Lane;
  static constexpr Lane kSize = 0x7fff, kInfinity = 0x7f80;
  static SENTCORE_INLINE std::int32_t of(float size) { return Bits<float>::of(size) >> 16; }
  static SENTCORE_INLINE float size(std::int32_t bits) { return Bits<float>::size(bits << 16); }
};

// The size that the elements of a row are rounded by, NaN where one is no number; whether the largest is kept apart.
struct RowSize {
  float size;
  bool alone;
};

// Of a row of numbers, by its two largest sizes.
template <typename T>
__attribute__((noinline)) RowSize size_by_two_largest(const T* x, std::int64_t depth) {
  constexpr int L = kLanes<float>;
  Vec<float> top = {}, next = {};  // of each lane
  std::int64_t k = 0;
  for (; k + L <= depth; k += L) {
    const Vec<float> size = sizes_of(load_wide(x + k));
    next = larger<float>(next, size < top ? size : top);
    top = larger<float>(top, size);
  }
  float largest = 0, second = 0;
  for (int i = 0; i < L; ++i) {
    const float lesser = top[i] < largest ? top[i] : largest;
    second = lesser > second ? lesser : second;
    second = next[i] > second ? next[i] : second;
    largest = top[i] > largest ? top[i] : largest;
  }
  for (; k < depth; ++k) {
    const float size = __builtin_fabsf(cpu::widen(x[k])), lesser = size < largest ? size : largest;
    second = lesser > second ? lesser : second;
    largest = size > largest ? size : largest;
  }
  const bool alone = largest > kInt8Apart * second;
  return {alone ? second : largest, alone};
}

template <typename T>
SENTCORE_INLINE RowSize size_of_row(const T* x, std::int64_t depth) {
  typedef typename Bits<T>::Lane Lane;
  constexpr int N = kLanes<Lane>;
  const Vec<Lane> mask = Bits<T>::kSize - Vec<Lane>{};
  const Lane* bits = reinterpret_cast<const Lane*>(x);
  Vec<Lane> top = {};
  std::int64_t k = 0;
  for (; k + N <= depth; k += N) {
    const Vec<Lane> size = load(bits + k) & mask;
    top = size > top ? size : top;
  }
  if (k < depth) {
    Lane rest[N] = {};
    __builtin_memcpy(rest, bits + k, static_cast<std::size_t>(depth - k) * sizeof(Lane));
    const Vec<Lane> size = load(rest) & mask;
    top = size > top ? size : top;
  }
  const std::int32_t largest = largest_lane(top);
  if (largest >= Bits<T>::kInfinity) return {__builtin_nanf(""), false};
  // Nearly always another lane holds an element of that size too, and no second largest has to be looked for.
  const float size = Bits<T>::size(largest);
  if (two_lanes_from(top, Bits<T>::of(size / kInt8Apart) + 1)) return {size, false};
  return size_by_two_largest(x, depth);
}

// ---- a row ----

// The 8 bits of x; 0 for what is kept apart, which alone is larger than the largest.
SENTCORE_INLINE IntVector rounded_of(Vec<float> x, Vec<float> inverse, const RowSize& row) {
  if (row.alone) x = sizes_of(x) > splat(row.size) ? Vec<float>{} : x;
  return round_of(x * inverse);
}

// Row r of `rows` is x [depth].
template <typename T>
inline void round_row(const T* x, std::int64_t depth, const Int8Rows& rows, std::int64_t r) {
  constexpr int L = kLanes<float>;
  const RowSize row = size_of_row(x, depth);
  std::int32_t* words = rows.words + r * rows.stride;
  rows.scales[r] = row.size / 127.0f;
  rows.apart[r] = 0;
  rows.places[r] = 0;
  rows.sums[r] = 0;
  if (row.alone) {
    std::int64_t place = 0;
    while (!(__builtin_fabsf(cpu::widen(x[place])) > row.size)) ++place;
    rows.apart[r] = cpu::widen(x[place]);
    rows.places[r] = static_cast<std::int32_t>(place);
  }
  if (!(row.size > 0)) {  // nothing else but zeros, or no numbers
    __builtin_memset(words, 0, static_cast<std::size_t>(rows.width) * sizeof(*words));
    return;
  }
  const Vec<float> inverse = splat(127.0f / row.size);
  IntVector sum = {};
  std::int64_t k = 0;
#if SENTCORE_ISA_HAS_VNNI
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  for (; k + 4 * L <= depth; k += 4 * L) {
    __m512i some[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) some[i] = (__m512i)rounded_of(load_wide(x + k + i * L), inverse, row);
    const __m512i halves = _mm512_packs_epi32(some[0], some[1]), others = _mm512_packs_epi32(some[2], some[3]);
    const __m512i bytes = _mm512_permutexvar_epi32(order, _mm512_packs_epi16(halves, others));
    _mm512_storeu_si512(words + k / kInt8Depth, bytes);
    sum = (IntVector)_mm512_dpbusd_epi32((__m512i)sum, _mm512_set1_epi8(1), bytes);
  }
#endif
  for (; k + L <= depth; k += L) {
    const IntVector rounded = rounded_of(load_wide(x + k), inverse, row);
    store_words(words + k / kInt8Depth * kWords, rounded);
    sum += rounded;
  }
  if (k < depth) {
    T rest[L] = {};  // what does not fill a vector, with zeros
    __builtin_memcpy(rest, x + k, static_cast<std::size_t>(depth - k) * sizeof(T));
    const IntVector rounded = rounded_of(load_wide(rest), inverse, row);
    std::int32_t last[L];  // words of a whole vector, of which the row has fewer
    store_words(last, rounded);
    const std::int64_t begin = k / kInt8Depth * kWords;
    for (std::int64_t i = begin; i < rows.width; ++i) words[i] = last[i - begin];
    sum += rounded;
  }
  rows.sums[r] = 128 * total_of(sum);
}

}  // namespace
}  // namespace SENTCORE_ISA
}  // namespace sentcore
