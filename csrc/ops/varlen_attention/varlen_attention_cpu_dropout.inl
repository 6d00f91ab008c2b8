// What dropout leaves of a row of probabilities, many draws of common/philox.cuh at a time; included by
// varlen_attention_cpu_kernel.inl and varlen_attention_cpu_backward_kernel.inl.

namespace sentcore {
namespace SENTCORE_ISA {
namespace {

typedef std::uint64_t DrawVector __attribute__((vector_size(SENTCORE_VECTOR_BYTES)));  // a 32-bit word in each lane
constexpr int kDraws = SENTCORE_VECTOR_BYTES / 8;
constexpr int kWords = 4 * kDraws;

// The whole product of each lane's low 32 bits: one instruction, where a product of 64 bits takes several.
SENTCORE_INLINE DrawVector product_of_words(DrawVector words, std::uint32_t factor) {
#if SENTCORE_VECTOR_BYTES == 64
  return (DrawVector)_mm512_mul_epu32((__m512i)words, _mm512_set1_epi64(factor));
#elif SENTCORE_VECTOR_BYTES == 32
  return (DrawVector)_mm256_mul_epu32((__m256i)words, _mm256_set1_epi64x(factor));
#else
  return (words & 0xffffffffu) * factor;
#endif
}

// words [kWords]: philox4x32_10's of the counters first .. first + kDraws - 1. Above a word, a lane holds what nobody
// reads.
SENTCORE_INLINE void draw_words(const Dropout& dropout, std::uint64_t first, std::uint32_t* words) {
  DrawVector c0 = {}, c2 = {}, c3 = {};
  for (int i = 0; i < kDraws; ++i) c0[i] = first + static_cast<std::uint64_t>(i);
  DrawVector c1 = c0 >> 32;
  c2 += dropout.offset & 0xffffffffu;
  c3 += dropout.offset >> 32;
  std::uint32_t k0 = static_cast<std::uint32_t>(dropout.key), k1 = static_cast<std::uint32_t>(dropout.key >> 32);
#pragma GCC unroll 10
  for (int round = 0; round < 10; ++round) {
    const DrawVector product0 = product_of_words(c0, 0xD2511F53u), product1 = product_of_words(c2, 0xCD9E8D57u);
    c0 = (product1 >> 32) ^ c1 ^ k0;
    c1 = product1;
    c2 = (product0 >> 32) ^ c3 ^ k1;
    c3 = product0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  for (int i = 0; i < kDraws; ++i) {
    words[4 * i] = static_cast<std::uint32_t>(c0[i]);
    words[4 * i + 1] = static_cast<std::uint32_t>(c1[i]);
    words[4 * i + 2] = static_cast<std::uint32_t>(c2[i]);
    words[4 * i + 3] = static_cast<std::uint32_t>(c3[i]);
  }
}

// keep [count, rounded up to kWords]: what dropout multiplies the probabilities of a row by, for the keys from `first`
// on, a multiple of 4.
template <typename A>
inline void keep_row(const VarlenAttention& given, const Sentence& s, std::int64_t head, std::int64_t row,
                     std::int64_t first, std::int64_t count, A* keep) {
  const Dropout dropout{static_cast<std::uint64_t>(given.seed[0]), static_cast<std::uint64_t>(given.seed[1]),
                        given.dropout_threshold};
  const std::int64_t begin = ((s.first_q + row) * given.heads + head) * given.dropout_columns + first;
  const A scale = static_cast<A>(given.exact_keep_scale);
  for (std::int64_t j = 0; j < count; j += kWords) {
    std::uint32_t words[kWords];
    draw_words(dropout, static_cast<std::uint64_t>((begin + j) / 4), words);
    for (int i = 0; i < kWords; ++i) keep[j + i] = words[i] >= dropout.threshold ? scale : A(0);
  }
}

template <typename A>
inline void apply_dropout(const VarlenAttention& given, const Sentence& s, std::int64_t head, std::int64_t row,
                          std::int64_t first, std::int64_t count, A* probabilities) {
  A keep[kWords];
  for (std::int64_t j = 0; j < count; j += kWords) {
    const std::int64_t some = count - j < kWords ? count - j : kWords;
    keep_row(given, s, head, row, first + j, some, keep);
    for (std::int64_t i = 0; i < some; ++i) probabilities[j + i] *= keep[i];
  }
}

}  // namespace
}  // namespace SENTCORE_ISA
}  // namespace sentcore
