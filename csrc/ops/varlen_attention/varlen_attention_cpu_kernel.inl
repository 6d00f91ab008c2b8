// The forward of one (sentence, head) on one instruction set; varlen_attention_cpu.cpp compiles it for each.
//
// Online softmax (Milakov and Gimelshein 2018) over blocks of kBlock keys, so memory is linear in the sentence. What is
// added to what depends on the sentence alone: a sentence gives the same bits in any batch and on any number of
// threads.

#include "common/simd.inl"

namespace sentcore {
namespace SENTCORE_ISA {

constexpr std::int64_t kBlock = 256;              // keys; their buffers fit in L2
constexpr std::int64_t kKeyStride = kBlock + 16;  // not a power of two: the columns of a key would share cache sets

// Room for one item. Q: max_seqlen_q rounded up to kRows; D: the head size rounded up to a vector.
template <typename A>
struct Buffers {
  A* keys;     // [D, kKeyStride], transposed
  A* values;   // [kBlock, D]
  A* queries;  // [kRows, size]
  A* scores;   // [kRows, kKeyStride]
  A* sums;     // [Q, D]: of probability * value
  A* maxima;   // [Q]
  A* totals;   // [Q]: of probabilities
};

template <typename A>
SENTCORE_INLINE std::int64_t padded_size(const VarlenAttention& given) {
  return (given.size + kLanes<A> - 1) / kLanes<A> * kLanes<A>;
}

template <typename A>
inline std::int64_t buffer_elements(const VarlenAttention& given) {
  const std::int64_t width = padded_size<A>(given), rows = given.max_seqlen_q + kRows;
  return width * kKeyStride + kBlock * width + kRows * given.size + kRows * kKeyStride + rows * (width + 2);
}

template <typename A>
inline Buffers<A> cut_buffers(const VarlenAttention& given, A* memory) {
  const std::int64_t width = padded_size<A>(given), rows = given.max_seqlen_q + kRows;
  Buffers<A> b;
  b.keys = memory;
  b.values = b.keys + width * kKeyStride;
  b.queries = b.values + kBlock * width;
  b.scores = b.queries + kRows * given.size;
  b.sums = b.scores + kRows * kKeyStride;
  b.maxima = b.sums + rows * width;
  b.totals = b.maxima + rows;
  return b;
}

// Where a sentence's rows and columns lie; row i stands beside column i + shift.
struct Sentence {
  std::int64_t first_q, first_k, length_q, length_k, shift;
};

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

// scores[0, count) of a row against the keys from `first` on, with what the options add and hide.
template <typename A>
inline void apply_options(const VarlenAttention& given, const Sentence& s, std::int64_t head, std::int64_t row,
                          std::int64_t first, std::int64_t count, A* scores) {
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

template <typename A>
inline void apply_dropout(const VarlenAttention& given, const Sentence& s, std::int64_t head, std::int64_t row,
                          std::int64_t first, std::int64_t count, A* probabilities) {
  const Dropout dropout{static_cast<std::uint64_t>(given.seed[0]), static_cast<std::uint64_t>(given.seed[1]),
                        given.dropout_threshold};
  const std::int64_t begin = ((s.first_q + row) * given.heads + head) * given.dropout_columns + first;
  for (std::int64_t j = 0; j < count; ++j) {
    const bool keep = dropout.keep_bits<1>(static_cast<std::uint64_t>(begin + j)) != 0;
    probabilities[j] = keep ? probabilities[j] * static_cast<A>(given.exact_keep_scale) : A(0);
  }
}

// scores [count, padded to `width`] become exp(score - maximum so far); what was summed before is scaled to that
// maximum.
template <typename A>
SENTCORE_INLINE void softmax_row(A* scores, std::int64_t count, std::int64_t width, A* sums, std::int64_t size,
                                 A& maximum, A& total) {
  constexpr int L = kLanes<A>;
  for (std::int64_t j = count; j < width; ++j) scores[j] = -__builtin_inff();
  Vec<A> top = splat(maximum);
  for (std::int64_t j = 0; j < width; j += L) top = larger<A>(top, load(scores + j));
  const A reached = largest_of<A>(top);
  if (reached == -__builtin_inff()) {  // nothing seen yet: exp(-inf - -inf) would be no number
    for (std::int64_t j = 0; j < width; j += L) store(scores + j, Vec<A>{});
    return;
  }
  Vec<A> sum = {};
  for (std::int64_t j = 0; j < width; j += L) {
    const Vec<A> p = exp_of(load(scores + j) - splat(reached));
    store(scores + j, p);
    sum += p;
  }
  if (reached > maximum) {
    const A factor = maximum == -__builtin_inff() ? A(0) : exp_of(splat(maximum - reached))[0];
    for (std::int64_t d = 0; d < size; d += L) store(sums + d, load(sums + d) * factor);
    total *= factor;
    maximum = reached;
  }
  total += sum_of<A>(sum);
}

// Asks for rows [row, row + kRows) of the next head while this one is computed: a head's rows lie in pages of their
// own, where no hardware looks ahead.
template <typename T>
SENTCORE_INLINE void prefetch_next_head(const VarlenAttention& given, const Sentence& s, const T* q, const T* k,
                                        const T* v, std::int64_t row) {
  constexpr std::int64_t kLine = 64 / static_cast<std::int64_t>(sizeof(T));
  const std::int64_t rows_q = s.length_q - row < kRows ? s.length_q - row : kRows;
  for (std::int64_t r = row; r < row + rows_q; ++r) {
    for (std::int64_t d = given.size; d < 2 * given.size; d += kLine) __builtin_prefetch(q + r * given.q_stride + d);
  }
  const std::int64_t rows_k = s.length_k - row < kRows ? s.length_k - row : kRows;
  for (std::int64_t r = row; r < row + rows_k; ++r) {
    for (std::int64_t d = given.size; d < 2 * given.size; d += kLine) {
      __builtin_prefetch(k + r * given.kv_stride + d);
      __builtin_prefetch(v + r * given.kv_stride + d);
    }
  }
}

template <typename T, typename A>
inline void attend(const VarlenAttentionForward& args, const Sentence& s, std::int64_t head, const Buffers<A>& b) {
  const VarlenAttention& given = args.given;
  const std::int64_t size = given.size, width = padded_size<A>(given);
  const T* q = static_cast<const T*>(given.q) + s.first_q * given.q_stride + head * size;
  const T* k = static_cast<const T*>(given.k) + s.first_k * given.kv_stride + head * size;
  const T* v = static_cast<const T*>(given.v) + s.first_k * given.kv_stride + head * size;
  const bool options =
      given.bias != nullptr || given.alibi_slopes != nullptr || given.window_left >= 0 || given.window_right >= 0;
  for (std::int64_t i = 0; i < s.length_q; ++i) b.maxima[i] = -__builtin_inff(), b.totals[i] = 0;
  __builtin_memset(b.sums, 0, static_cast<std::size_t>((s.length_q + kRows) * width) * sizeof(A));

  for (std::int64_t first = 0; first < s.length_k; first += kBlock) {
    const std::int64_t count = s.length_k - first < kBlock ? s.length_k - first : kBlock;
    const std::int64_t columns = (count + kLanes<A> - 1) / kLanes<A> * kLanes<A>;
    for (std::int64_t j = 0; j < count; ++j) {
      for (std::int64_t d = 0; d < size; ++d) {
        b.keys[d * kKeyStride + j] = cpu::widen(k[(first + j) * given.kv_stride + d]);
      }
      for (std::int64_t d = 0; d < size; ++d)
        b.values[j * width + d] = cpu::widen(v[(first + j) * given.kv_stride + d]);
      for (std::int64_t d = size; d < width; ++d) b.values[j * width + d] = 0;
    }
    for (std::int64_t d = 0; d < size; ++d) {
      for (std::int64_t j = count; j < columns; ++j) b.keys[d * kKeyStride + j] = 0;
    }
    for (std::int64_t row = 0; row < s.length_q; row += kRows) {
      const std::int64_t rows = s.length_q - row < kRows ? s.length_q - row : kRows;
      if (options) {  // does any row of these see a key of this block?
        const Range top = seen(given, s, row, first, first + count);
        const Range bottom = seen(given, s, row + rows - 1, first, first + count);
        if (top.begin >= first + count || bottom.end <= first) continue;
      }
      if (first == 0 && head + 1 < given.heads) prefetch_next_head(given, s, q, k, v, row);
      for (std::int64_t r = 0; r < kRows; ++r) {
        const std::int64_t source = row + (r < rows ? r : 0);
        for (std::int64_t d = 0; d < size; ++d) {
          b.queries[r * size + d] = cpu::widen(q[source * given.q_stride + d]) * static_cast<A>(given.exact_scale);
        }
      }
      multiply<A, false>(b.queries, size, b.keys, kKeyStride, size, columns, b.scores, kKeyStride);
      for (std::int64_t r = 0; r < rows; ++r) {
        A* scores = b.scores + r * kKeyStride;
        if (options) apply_options(given, s, head, row + r, first, count, scores);
        softmax_row(scores, count, columns, b.sums + (row + r) * width, width, b.maxima[row + r], b.totals[row + r]);
        if (given.seed != nullptr) apply_dropout(given, s, head, row + r, first, count, scores);
      }
      for (std::int64_t r = rows; r < kRows; ++r) {
        for (std::int64_t j = 0; j < count; ++j) b.scores[r * kKeyStride + j] = 0;
      }
      multiply<A, true>(b.scores, kKeyStride, b.values, width, count, width, b.sums + row * width, width);
    }
  }

  T* out = static_cast<T*>(args.out) + (s.first_q * given.heads + head) * size;
  for (std::int64_t i = 0; i < s.length_q; ++i) {
    const A factor = b.totals[i] > 0 ? A(1) / b.totals[i] : A(0);
    for (std::int64_t d = 0; d < size; ++d)
      cpu::narrow(b.sums[i * width + d] * factor, out[i * given.heads * size + d]);
    if (args.lse != nullptr) {
      A* lse = reinterpret_cast<A*>(args.lse) + (s.first_q + i) * given.heads + head;
      *lse = b.totals[i] > 0 ? b.maxima[i] + static_cast<A>(__builtin_log(b.totals[i])) : -__builtin_inff();
    }
  }
}

// The units from, from + step, ... of all: unit u is the u % groups-th share of the heads of sentence u / groups.
template <typename T, typename A>
inline void run_units(const VarlenAttentionForward& args, std::int64_t groups, std::int64_t from, std::int64_t step,
                      A* memory) {
  const VarlenAttention& given = args.given;
  const Buffers<A> buffers = cut_buffers(given, memory);
  for (std::int64_t unit = from; unit < given.sentences * groups; unit += step) {
    const std::int64_t index = unit / groups, share = unit % groups;
    Sentence s;
    s.first_q = given.cu_seqlens_q[index];
    s.first_k = given.cu_seqlens_k[index];
    s.length_q = given.cu_seqlens_q[index + 1] - s.first_q;
    s.length_k = given.cu_seqlens_k[index + 1] - s.first_k;
    if (s.length_q > given.max_seqlen_q) s.length_q = given.max_seqlen_q;
    if (s.length_k > given.max_seqlen_k) s.length_k = given.max_seqlen_k;
    s.shift = s.length_k - s.length_q;
    const std::int64_t last = (share + 1) * given.heads / groups;
    for (std::int64_t head = share * given.heads / groups; head < last; ++head) attend<T, A>(args, s, head, buffers);
  }
}

// Bytes of memory for one thread's buffers.
inline std::int64_t memory_of(const VarlenAttention& given) {
  if (given.dtype == Dtype::float64) return buffer_elements<double>(given) * static_cast<std::int64_t>(sizeof(double));
  return buffer_elements<float>(given) * static_cast<std::int64_t>(sizeof(float));
}

inline void run(const VarlenAttentionForward& args, std::int64_t groups, std::int64_t from, std::int64_t step,
                void* memory) {
  switch (args.given.dtype) {
    case Dtype::float32:
      return run_units<float, float>(args, groups, from, step, static_cast<float*>(memory));
    case Dtype::float64:
      return run_units<double, double>(args, groups, from, step, static_cast<double*>(memory));
    case Dtype::bfloat16:
      return run_units<cpu::BFloat16, float>(args, groups, from, step, static_cast<float*>(memory));
    case Dtype::float16:
      return run_units<cpu::Float16, float>(args, groups, from, step, static_cast<float*>(memory));
  }
}

}  // namespace SENTCORE_ISA
}  // namespace sentcore
