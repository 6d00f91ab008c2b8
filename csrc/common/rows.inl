// Rows of any element type, a vector at a time; included after simd.inl.

namespace sentcore {
namespace SENTCORE_ISA {
namespace {

// ---- float64 and float16, beside simd.inl's types ----

SENTCORE_INLINE Vec<double> load_wide(const double* p) { return load(p); }
SENTCORE_INLINE void store_narrow(double* p, Vec<double> v) { store(p, v); }

// Where no instruction does it: float_bits.h says how.
SENTCORE_INLINE Vec<float> load_wide(const cpu::Float16* p) {
  HalfVector halves;
  __builtin_memcpy(&halves, p, sizeof(halves));
#if SENTCORE_VECTOR_BYTES == 64
  return (Vec<float>)_mm512_cvtph_ps((__m256i)halves);
#else
  const IntVector bits = __builtin_convertvector(halves, IntVector), magnitude = (bits & 0x7fff) << 13;
  const Vec<float> least = (Vec<float>)splat_int(113 << 23);
  const IntVector subnormal = (IntVector)((Vec<float>)(magnitude + (113 << 23)) - least);
  IntVector result = magnitude >= splat_int(31 << 23) ? magnitude | 0x7f800000 : magnitude + (112 << 23);
  result = magnitude < splat_int(1 << 23) ? subnormal : result;
  return (Vec<float>)(result | (bits & 0x8000) << 16);
#endif
}
SENTCORE_INLINE void store_narrow(cpu::Float16* p, Vec<float> v) {
#if SENTCORE_VECTOR_BYTES == 64
  const __m256i halves = _mm512_cvtps_ph((__m512)v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#else
  const IntVector bits = (IntVector)v, magnitude = bits & 0x7fffffff;
  const IntVector normal = (magnitude - (112 << 23) + 0xfff + ((magnitude >> 13) & 1)) >> 13;
  const IntVector special = magnitude > splat_int(0x7f800000) ? splat_int(0x7e00) : splat_int(0x7c00);
  const IntVector subnormal = (IntVector)((Vec<float>)magnitude + 0.5f) - 0x3f000000;
  IntVector result = magnitude >= splat_int(143 << 23) ? special : normal;
  result = magnitude < splat_int(113 << 23) ? subnormal : result;
  const HalfVector halves = __builtin_convertvector(result | ((bits >> 16) & 0x8000), HalfVector);
#endif
  __builtin_memcpy(p, &halves, sizeof(halves));
}

// ---- pieces of a row ----

// `count` elements, at most a vector's; the other lanes are zero, or not written.
template <typename T>
SENTCORE_INLINE Vec<cpu::Wide<T>> load_at(const T* p, std::int64_t count) {
  constexpr int L = kLanes<cpu::Wide<T>>;
  if (count >= L) return load_wide(p);
  T some[L] = {};
  __builtin_memcpy(some, p, static_cast<std::size_t>(count) * sizeof(T));
  return load_wide(some);
}
template <typename T>
SENTCORE_INLINE void store_at(T* p, Vec<cpu::Wide<T>> v, std::int64_t count) {
  constexpr int L = kLanes<cpu::Wide<T>>;
  if (count >= L) return store_narrow(p, v);
  T some[L];
  store_narrow(some, v);
  __builtin_memcpy(p, some, static_cast<std::size_t>(count) * sizeof(T));
}

// Zero in the lanes from `count` on.
template <typename A>
SENTCORE_INLINE Vec<A> first_lanes(Vec<A> v, std::int64_t count) {
  constexpr A places[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  if (count >= kLanes<A>) return v;
  return load(places) < splat(static_cast<A>(count)) ? v : Vec<A>{};
}

// v as it would be read again after a store.
template <typename T>
SENTCORE_INLINE Vec<cpu::Wide<T>> rounded(Vec<cpu::Wide<T>> v) {
  T some[kLanes<cpu::Wide<T>>];
  store_narrow(some, v);
  return load_wide(some);
}

// step(first, count, slot) over a row of `width` elements: whole vectors, four at a time in slots of their own, so that
// no sum waits for the one before; then single ones, and what is left. `count` is a constant but for the last.
template <typename A, typename Step>
SENTCORE_INLINE void over_row(std::int64_t width, Step& step) {
  constexpr std::int64_t L = kLanes<A>;
  std::int64_t j = 0;
  for (; j + 4 * L <= width; j += 4 * L) {
    step(j, L, 0);
    step(j + L, L, 1);
    step(j + 2 * L, L, 2);
    step(j + 3 * L, L, 3);
  }
  for (; j + L <= width; j += L) step(j, L, 0);
  if (j < width) step(j, width - j, 0);
}

// The sums of the four slots.
template <typename A>
struct Slots {
  Vec<A> slot[4] = {};
  SENTCORE_INLINE A sum() const { return sum_of<A>((slot[0] + slot[1]) + (slot[2] + slot[3])); }
};

SENTCORE_INLINE float root_of(float value) { return __builtin_sqrtf(value); }
SENTCORE_INLINE double root_of(double value) { return __builtin_sqrt(value); }

// Body<T>::run(arguments...) for the element type that `dtype` names.
template <template <typename> class Body, typename... Args>
SENTCORE_INLINE void run_for_dtype(Dtype dtype, const Args&... args) {
  switch (dtype) {
    case Dtype::float32:
      return Body<float>::run(args...);
    case Dtype::float64:
      return Body<double>::run(args...);
    case Dtype::bfloat16:
      return Body<cpu::BFloat16>::run(args...);
    case Dtype::float16:
      return Body<cpu::Float16>::run(args...);
  }
}

}  // namespace
}  // namespace SENTCORE_ISA
}  // namespace sentcore
