// Rows of x to 8 bits; included by int8_linear_cpu_kernel.inl.

namespace sentcore {
namespace SENTCORE_ISA {
namespace {

// What one step of the depth, 4 inputs, takes of a rounded row: 4 bytes, or where bytes cannot be multiplied, inputs 0
// and 2 and then inputs 1 and 3 as halves.
constexpr int kWords = SENTCORE_ISA_HAS_VNNI ? 1 : 2;

// The rounded rows of one task and what belongs to them.
struct Int8Rows {
  std::int32_t* words;   // [rows, stride]
  std::int64_t stride;   // steps of the depth * kWords
  float* scales;         // [rows]: max|x| / 127, NaN where x holds NaN or infinity
  std::int32_t* sums;    // [rows]: 128 * sum of the rounded x
  float* apart;          // [rows]: the element that is kept as it is, or 0
  std::int32_t* places;  // [rows]: its column
};

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

// The larger of two sizes; NaN where one of them is.
SENTCORE_INLINE float larger_size(float a, float b) { return b > a || b != b ? b : a; }
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

// The 8 bits of x; 0 for what is kept apart, which alone is larger than the largest.
SENTCORE_INLINE IntVector rounded_of(Vec<float> x, Vec<float> inverse, bool finite, bool alone, float largest) {
  if (!finite) return IntVector{};
  if (alone) x = sizes_of(x) > splat(largest) ? Vec<float>{} : x;
  return round_of(x * inverse);
}

// Row r of `rows` is x [depth].
template <typename T>
inline void round_row(const T* x, std::int64_t depth, const Int8Rows& rows, std::int64_t r) {
  constexpr int L = kLanes<float>;
  const std::int64_t whole = depth / L * L;
  T rest[L] = {};  // what does not fill a vector, with zeros
  for (std::int64_t k = whole; k < depth; ++k) rest[k - whole] = x[k];
  // The two largest sizes of each lane, and then of the row.
  Vec<float> top = sizes_of(load_wide(rest)), next = {};
  for (std::int64_t k = 0; k < whole; k += L) {
    const Vec<float> size = sizes_of(load_wide(x + k));
    next = larger<float>(next, size < top ? size : top);
    top = (size > top) | (size != size) ? size : top;
  }
  float largest = 0, second = 0;
  for (int i = 0; i < L; ++i) {
    const float lesser = top[i] < largest ? top[i] : largest;
    second = lesser > second ? lesser : second;
    second = next[i] > second ? next[i] : second;
    largest = larger_size(largest, top[i]);
  }
  const bool finite = largest < __builtin_inff(), alone = finite && largest > kInt8Apart * second;
  rows.apart[r] = 0;
  rows.places[r] = 0;
  if (alone) {
    std::int64_t place = 0;
    while (__builtin_fabsf(cpu::widen(x[place])) != largest) ++place;
    rows.apart[r] = cpu::widen(x[place]);
    rows.places[r] = static_cast<std::int32_t>(place);
    largest = second;
  }
  const Vec<float> inverse = splat(finite && largest > 0 ? 127.0f / largest : 0.0f);
  rows.scales[r] = finite ? largest / 127.0f : __builtin_nanf("");

  std::int32_t* words = rows.words + r * rows.stride;
  IntVector sum = {};
  for (std::int64_t k = 0; k < whole; k += L) {
    const IntVector rounded = rounded_of(load_wide(x + k), inverse, finite, alone, largest);
    store_words(words + k / kInt8Depth * kWords, rounded);
    sum += rounded;
  }
  if (whole < depth) {
    const IntVector rounded = rounded_of(load_wide(rest), inverse, finite, alone, largest);
    std::int32_t last[L];  // words of a whole vector, of which the row has fewer
    store_words(last, rounded);
    const std::int64_t begin = whole / kInt8Depth * kWords;
    for (std::int64_t i = begin; i < rows.stride; ++i) words[i] = last[i - begin];
    sum += rounded;
  }
  std::int32_t total = 0;
  for (int i = 0; i < L; ++i) total += sum[i];
  rows.sums[r] = 128 * total;
}

}  // namespace
}  // namespace SENTCORE_ISA
}  // namespace sentcore
