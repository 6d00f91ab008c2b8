// Keys and values in the order in which they are multiplied; included by the kernels of varlen_attention's forward.

namespace sentcore {
namespace SENTCORE_ISA {
namespace {

template <typename A>
SENTCORE_INLINE std::int64_t padded_size(const VarlenAttention& given) {
  return (given.size + kLanes<A> - 1) / kLanes<A> * kLanes<A>;
}

// Between the rows of keys and of scores, for `columns` keys: never a power of two, whose rows would share cache sets.
template <typename A>
SENTCORE_INLINE std::int64_t key_stride(std::int64_t columns) {
  return columns + kLanes<A>;
}

// The units from element d of a row on.
template <typename P, typename T>
SENTCORE_INLINE Vec<typename P::Unit> load_units(const T* row) {
  typedef typename P::Unit Unit;
  Vec<Unit> units;
  if constexpr (sizeof(Unit) == sizeof(T) * P::kDepth) {
    __builtin_memcpy(&units, row, sizeof(units));
  } else {
    for (int i = 0; i < kLanes<Unit>; ++i) units[i] = cpu::widen(row[i]);
  }
  return units;
}
template <typename P, typename T>
SENTCORE_INLINE typename P::Unit load_unit(const T* row) {
  typename P::Unit unit;
  if constexpr (sizeof(unit) == sizeof(T) * P::kDepth) {
    __builtin_memcpy(&unit, row, sizeof(unit));
  } else {
    unit = cpu::widen(*row);
  }
  return unit;
}

// keys [count, size] -> [size / kDepth, stride], zeros up to `columns`.
template <typename P, typename T>
inline void pack_keys(const T* k, std::int64_t k_stride, std::int64_t count, std::int64_t columns, std::int64_t size,
                      typename P::Unit* keys, std::int64_t stride) {
  typedef typename P::Unit Unit;
  constexpr int L = kLanes<Unit>;
  const std::int64_t units = size / P::kDepth;
  for (std::int64_t j = 0; j < columns; j += L) {
    std::int64_t d = 0;
    for (; d + L <= units; d += L) {
      Vec<Unit> square[L];
#pragma GCC unroll 16
      for (int i = 0; i < L; ++i) {
        square[i] = Vec<Unit>{};
        if (j + i < count) square[i] = load_units<P>(k + (j + i) * k_stride + d * P::kDepth);
      }
      transpose<Unit>(square);
#pragma GCC unroll 16
      for (int i = 0; i < L; ++i) store(keys + (d + i) * stride + j, square[i]);
    }
    for (; d < units; ++d) {
      for (std::int64_t i = j; i < j + L; ++i) {
        keys[d * stride + i] = i < count ? load_unit<P>(k + i * k_stride + d * P::kDepth) : Unit(0);
      }
    }
  }
}

// values [count, size] -> [count / kDepth rounded up, width], zeros beyond.
template <typename P, typename T>
inline void pack_values(const T* v, std::int64_t v_stride, std::int64_t count, std::int64_t size, std::int64_t width,
                        typename P::Unit* values) {
  typedef typename P::Unit Unit;
  constexpr int L = kLanes<Unit>;
  for (std::int64_t j = 0; j < count; j += P::kDepth) {
    const T* row = v + j * v_stride;
    Unit* target = values + j / P::kDepth * width;
    std::int64_t d = 0;
#if SENTCORE_ISA_HAS_BF16
    if constexpr (P::kDepth == 2) {
      const bool alone = j + 1 == count;
      for (; d + L <= size; d += L) {  // L elements of two rows become L units
        const __m512i first = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(row + d)));
        __m512i second = _mm512_setzero_si512();
        if (!alone) {
          second = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(row + v_stride + d)));
        }
        store(target + d, (Vec<Unit>)_mm512_or_si512(first, _mm512_slli_epi32(second, 16)));
      }
      for (; d < size; ++d) {
        const std::uint32_t second = alone ? 0 : row[v_stride + d].bits;
        target[d] = static_cast<Unit>(row[d].bits | second << 16);
      }
    }
#endif
    if constexpr (P::kDepth == 1) {
      for (; d + L <= size; d += L) store(target + d, load_units<P>(row + d));
      for (; d < size; ++d) target[d] = load_unit<P>(row + d);
    }
    for (; d < width; ++d) target[d] = 0;
  }
}

// Asks for `count` rows from `row` on of the next head while this one is computed: a head's rows lie in pages of their
// own, where no hardware looks ahead.
template <typename T>
SENTCORE_INLINE void prefetch_next_head(const VarlenAttention& given, const Sentence& s, const T* q, const T* k,
                                        const T* v, std::int64_t row, std::int64_t count) {
  constexpr std::int64_t kLine = 64 / static_cast<std::int64_t>(sizeof(T));
  const std::int64_t rows_q = s.length_q - row < count ? s.length_q - row : count;
  for (std::int64_t r = row; r < row + rows_q; ++r) {
    for (std::int64_t d = given.size; d < 2 * given.size; d += kLine) __builtin_prefetch(q + r * given.q_stride + d);
  }
  const std::int64_t rows_k = s.length_k - row < count ? s.length_k - row : count;
  for (std::int64_t r = row; r < row + rows_k; ++r) {
    for (std::int64_t d = given.size; d < 2 * given.size; d += kLine) {
      __builtin_prefetch(k + r * given.kv_stride + d);
      __builtin_prefetch(v + r * given.kv_stride + d);
    }
  }
}

}  // namespace
}  // namespace SENTCORE_ISA
}  // namespace sentcore
