// Which keys a query sees and what is added to a score; included by varlen_attention_cpu_kernel.inl and
// varlen_attention_cpu_backward_kernel.inl.

namespace sentcore {
namespace SENTCORE_ISA {
namespace {

// Where a sentence's rows and columns lie; row i stands beside column i + shift.
struct Sentence {
  std::int64_t first_q, first_k, length_q, length_k, shift;
};

inline Sentence sentence_of(const VarlenAttention& given, std::int64_t index) {
  Sentence s;
  s.first_q = given.cu_seqlens_q[index];
  s.first_k = given.cu_seqlens_k[index];
  s.length_q = given.cu_seqlens_q[index + 1] - s.first_q;
  s.length_k = given.cu_seqlens_k[index + 1] - s.first_k;
  if (s.length_q > given.max_seqlen_q) s.length_q = given.max_seqlen_q;
  if (s.length_k > given.max_seqlen_k) s.length_k = given.max_seqlen_k;
  s.shift = s.length_k - s.length_q;
  return s;
}

// Whether scores need apply_options below. So they do where a scale turns their order round.
SENTCORE_INLINE bool has_options(const VarlenAttention& given) {
  return given.bias != nullptr || given.alibi_slopes != nullptr || given.window_left >= 0 || given.window_right >= 0 ||
         !(given.exact_scale > 0);
}

// The columns [begin, end) of [first, last) that `row` sees.
struct Range {
  std::int64_t begin, end;
};
SENTCORE_INLINE Range seen(const VarlenAttention& given, const Sentence& s, std::int64_t row, std::int64_t first,
                           std::int64_t last) {
  const std::int64_t place = row + s.shift;
  if (given.window_left >= 0 && place - given.window_left > first) first = place - given.window_left;
  if (given.window_right >= 0 && place + given.window_right + 1 < last) last = place + given.window_right + 1;
  return {first, last < first ? first : last};
}

template <typename A>
SENTCORE_INLINE A bias_at(const VarlenAttention& given, std::int64_t head, std::int64_t row, std::int64_t column) {
  const std::int64_t at = head * given.bias_strides[0] + row * given.bias_strides[1] + column * given.bias_strides[2];
  if (given.bias_is_float32) return static_cast<const float*>(given.bias)[at];
  switch (given.dtype) {
    case Dtype::float64:
      return static_cast<A>(static_cast<const double*>(given.bias)[at]);
    case Dtype::bfloat16:
      return float_from_bfloat16_bits(static_cast<const std::uint16_t*>(given.bias)[at]);
    case Dtype::float16:
      return float_from_float16_bits(static_cast<const std::uint16_t*>(given.bias)[at]);
    default:
      return static_cast<const float*>(given.bias)[at];
  }
}

// scores[0, count) of a row against the keys from `first` on: scaled, with what the options add and hide.
template <typename A>
inline void apply_options(const VarlenAttention& given, const Sentence& s, std::int64_t head, std::int64_t row,
                          std::int64_t first, std::int64_t count, A* scores) {
  for (std::int64_t j = 0; j < count; ++j) scores[j] *= static_cast<A>(given.exact_scale);
  if (given.bias != nullptr) {
    for (std::int64_t j = 0; j < count; ++j) scores[j] += bias_at<A>(given, head, row, first + j);
  }
  if (given.alibi_slopes != nullptr) {
    const A slope = given.alibi_slopes[head];
    for (std::int64_t j = 0; j < count; ++j) {
      const std::int64_t distance = row + s.shift - (first + j);
      scores[j] -= slope * static_cast<A>(distance < 0 ? -distance : distance);
    }
  }
  const Range visible = seen(given, s, row, first, first + count);
  for (std::int64_t j = 0; j < visible.begin - first && j < count; ++j) scores[j] = -__builtin_inff();
  for (std::int64_t j = visible.end - first; j < count; ++j) scores[j] = -__builtin_inff();
}

}  // namespace
}  // namespace SENTCORE_ISA
}  // namespace sentcore
