// The forward of one (sentence, head) on one instruction set; varlen_attention_cpu.cpp compiles it for each.
//
// Online softmax (Milakov and Gimelshein 2018) over blocks of kBlock keys, so memory is linear in the sentence. What is
// added to what depends on the sentence alone: a sentence gives the same bits in any batch and on any number of
// threads.

// clang-format off: in this order
#include "common/simd.inl"
#include "common/rows.inl"
#include "common/product.inl"
#include "ops/varlen_attention/varlen_attention_cpu_options.inl"
#include "ops/varlen_attention/varlen_attention_cpu_dropout.inl"
#include "ops/varlen_attention/varlen_attention_cpu_softmax.inl"
#include "ops/varlen_attention/varlen_attention_cpu_operands.inl"
#include "ops/varlen_attention/varlen_attention_cpu_short.inl"
// clang-format on

namespace sentcore {
namespace SENTCORE_ISA {
namespace {

constexpr std::int64_t kBlock = 256;  // keys; their buffers fit in L2

// Room for one item, of products P. S: max_seqlen_q rounded up to kRows; D: the head size rounded up to a vector.
template <typename P>
struct Buffers {
  typedef typename P::Unit Unit;
  typedef typename P::Sum Sum;
  Unit* keys;           // [D / kDepth, key_stride], transposed
  Unit* values;         // [kBlock / kDepth, D]
  Unit* queries;        // [kRows, D / kDepth]
  Sum* scores;          // [kRows, key_stride]
  Unit* probabilities;  // [kRows, key_stride]; the scores themselves where those are Units
  Sum* sums;            // [S, D]: of probability * value
  Sum* maxima;          // [S]
  Sum* totals;          // [S]: of probabilities
};

// Unit and Sum are of one size.
template <typename P>
inline std::int64_t buffer_elements(const VarlenAttention& given) {
  typedef typename P::Sum A;
  const std::int64_t width = padded_size<A>(given), rows = given.max_seqlen_q + kRows, stride = key_stride<A>(kBlock);
  return width * stride + kBlock * width + kRows * width + 2 * kRows * stride + rows * (width + 2);
}

template <typename P>
inline Buffers<P> cut_buffers(const VarlenAttention& given, void* memory) {
  typedef typename P::Unit Unit;
  typedef typename P::Sum A;
  const std::int64_t width = padded_size<A>(given), rows = given.max_seqlen_q + kRows, stride = key_stride<A>(kBlock);
  Buffers<P> b;
  b.keys = static_cast<Unit*>(memory);
  b.values = b.keys + width * stride;
  b.queries = b.values + kBlock * width;
  b.probabilities = b.queries + kRows * width;
  b.scores = reinterpret_cast<A*>(b.probabilities) + (P::kDepth == 1 ? 0 : kRows * stride);
  b.sums = b.scores + kRows * stride;
  b.maxima = b.sums + rows * width;
  b.totals = b.maxima + rows;
  return b;
}

// ---- a head of a sentence ----

// Rows [row, row + rows) of q, and again the first of them up to a tile's, as Units [rows_of_tile(rows), units].
template <typename P, typename T>
SENTCORE_INLINE void copy_queries(const T* q, std::int64_t q_stride, std::int64_t row, std::int64_t rows,
                                  std::int64_t units, typename P::Unit* queries) {
  constexpr std::int64_t L = kLanes<typename P::Unit>;
  for (std::int64_t r = 0; r < rows_of_tile(rows); ++r) {
    const T* source = q + (row + (r < rows ? r : 0)) * q_stride;
    typename P::Unit* target = queries + r * units;
    std::int64_t d = 0;
    for (; d + L <= units; d += L) store(target + d, load_units<P>(source + d * P::kDepth));
    for (; d < units; ++d) target[d] = load_unit<P>(source + d * P::kDepth);
  }
}

template <typename T, typename P>
inline void attend_short(const VarlenAttentionForward& args, const Sentence& s, std::int64_t head,
                         const Buffers<P>& b) {
  typedef typename P::Sum A;
  constexpr std::int64_t L = kLanes<A>;
  const VarlenAttention& given = args.given;
  const std::int64_t size = given.size, units = size / P::kDepth, width = padded_size<A>(given);
  const T* q = static_cast<const T*>(given.q) + s.first_q * given.q_stride + head * size;
  const T* k = static_cast<const T*>(given.k) + s.first_k * given.kv_stride + head * size;
  const T* v = static_cast<const T*>(given.v) + s.first_k * given.kv_stride + head * size;
  const std::int64_t columns = (s.length_k + L - 1) / L * L, stride = key_stride<A>(columns);
  pack_keys<P>(k, given.kv_stride, s.length_k, columns, size, b.keys, stride);
  pack_values<P>(v, given.kv_stride, s.length_k, size, width, b.values);
  const ShortHead<P> shared = {
      b.keys, b.values, s.length_k, columns, units, stride, width, size, static_cast<A>(given.exact_scale)};
  const std::int64_t out_stride = given.heads * size;
  T* out = static_cast<T*>(args.out) + s.first_q * out_stride + head * size;
  for (std::int64_t row = 0; row < s.length_q; row += kRows) {
    const std::int64_t rows = s.length_q - row < kRows ? s.length_q - row : kRows;
    if (head + 1 < given.heads) prefetch_next_head(given, s, q, k, v, row, kRows);
    copy_queries<P>(q, given.q_stride, row, rows, units, b.queries);
    T* const target = out + row * out_stride;
    A *const maxima = b.maxima + row, *const totals = b.totals + row;
    if (rows <= kRows / 3) {
      run_short_tile<P, T, kRows / 3>(shared, b.queries, units, rows, b.probabilities, maxima, totals, target,
                                      out_stride);
    } else if (rows <= kRows / 3 * 2) {
      run_short_tile<P, T, kRows / 3 * 2>(shared, b.queries, units, rows, b.probabilities, maxima, totals, target,
                                          out_stride);
    } else {
      run_short_tile<P, T, kRows>(shared, b.queries, units, rows, b.probabilities, maxima, totals, target, out_stride);
    }
  }
  if (args.lse == nullptr) return;
  A* lse = reinterpret_cast<A*>(args.lse) + s.first_q * given.heads + head;
  for (std::int64_t i = 0; i < s.length_q; ++i) {
    lse[i * given.heads] = b.maxima[i] * shared.factor + static_cast<A>(__builtin_log(b.totals[i]));
  }
}

template <typename T, typename P>
inline void attend(const VarlenAttentionForward& args, const Sentence& s, std::int64_t head, const Buffers<P>& b) {
  typedef typename P::Sum A;
  constexpr std::int64_t L = kLanes<A>;
  const VarlenAttention& given = args.given;
  const std::int64_t size = given.size, units = size / P::kDepth, width = padded_size<A>(given);
  const T* q = static_cast<const T*>(given.q) + s.first_q * given.q_stride + head * size;
  const T* k = static_cast<const T*>(given.k) + s.first_k * given.kv_stride + head * size;
  const T* v = static_cast<const T*>(given.v) + s.first_k * given.kv_stride + head * size;
  const bool options = has_options(given);  // their pass scales the scores itself
  const A factor = options ? A(1) : static_cast<A>(given.exact_scale);
  for (std::int64_t i = 0; i < s.length_q; ++i) b.maxima[i] = -__builtin_inff(), b.totals[i] = 0;
  const bool starts_at_zero = options || s.length_k == 0;
  if (starts_at_zero) {
    __builtin_memset(b.sums, 0, static_cast<std::size_t>((s.length_q + kRows) * width) * sizeof(A));
  }

  for (std::int64_t first = 0; first < s.length_k; first += kBlock) {
    const std::int64_t count = s.length_k - first < kBlock ? s.length_k - first : kBlock;
    const std::int64_t columns = (count + L - 1) / L * L, stride = key_stride<A>(columns);
    pack_keys<P>(k + first * given.kv_stride, given.kv_stride, count, columns, size, b.keys, stride);
    pack_values<P>(v + first * given.kv_stride, given.kv_stride, count, size, width, b.values);
    for (std::int64_t row = 0; row < s.length_q; row += kRows) {
      const std::int64_t rows = s.length_q - row < kRows ? s.length_q - row : kRows;
      if (options) {  // does any row of these see a key of this block?
        const Range top = seen(given, s, row, first, first + count);
        const Range bottom = seen(given, s, row + rows - 1, first, first + count);
        if (top.begin >= first + count || bottom.end <= first) continue;
      }
      if (first == 0 && head + 1 < given.heads) prefetch_next_head(given, s, q, k, v, row, kRows);
      copy_queries<P>(q, given.q_stride, row, rows, units, b.queries);
      multiply<P, false>(rows, b.queries, units, b.keys, stride, units, columns, b.scores, stride);
      for (std::int64_t r = 0; r < rows; ++r) {
        A* scores = b.scores + r * stride;
        if (options) apply_options(given, s, head, row + r, first, count, scores);
        softmax_row<P>(scores, count, columns, factor, b.sums + (row + r) * width, width, b.maxima[row + r],
                       b.totals[row + r]);
        if (given.seed != nullptr) apply_dropout(given, s, head, row + r, first, count, scores);
        if constexpr (P::kDepth == 2) narrow_row(scores, columns, b.probabilities + r * stride);
      }
      const std::int64_t depth = (count + P::kDepth - 1) / P::kDepth;
      if (first == 0 && !starts_at_zero) {
        multiply<P, false>(rows, b.probabilities, stride, b.values, width, depth, width, b.sums + row * width, width);
      } else {
        multiply<P, true>(rows, b.probabilities, stride, b.values, width, depth, width, b.sums + row * width, width);
      }
    }
  }

  T* out = static_cast<T*>(args.out) + (s.first_q * given.heads + head) * size;
  for (std::int64_t i = 0; i < s.length_q; ++i) {
    const A inverse = b.totals[i] != 0 ? A(1) / b.totals[i] : A(0);  // NaN of NaN
    for (std::int64_t d = 0; d < size; d += L) {
      store_at(out + i * given.heads * size + d, load(b.sums + i * width + d) * inverse, size - d);
    }
    if (args.lse != nullptr) {
      A* lse = reinterpret_cast<A*>(args.lse) + (s.first_q + i) * given.heads + head;
      const bool seen = b.totals[i] != 0;
      *lse = seen ? b.maxima[i] * factor + static_cast<A>(__builtin_log(b.totals[i])) : -__builtin_inff();
    }
  }
}

// The units from, from + step, ... of all: unit u is the u % groups-th share of the heads of sentence u / groups.
template <typename T, typename P>
inline void run_units(const VarlenAttentionForward& args, std::int64_t groups, std::int64_t from, std::int64_t step,
                      void* memory) {
  const VarlenAttention& given = args.given;
  const Buffers<P> buffers = cut_buffers<P>(given, memory);
  for (std::int64_t unit = from; unit < given.sentences * groups; unit += step) {
    const std::int64_t index = unit / groups, share = unit % groups;
    const Sentence s = sentence_of(given, index);
    const std::int64_t last = (share + 1) * given.heads / groups;
    const bool is_short = s.length_k > 0 && s.length_k <= kShort<P> && !has_options(given) && given.seed == nullptr;
    for (std::int64_t head = share * given.heads / groups; head < last; ++head) {
      is_short ? attend_short<T>(args, s, head, buffers) : attend<T>(args, s, head, buffers);
    }
  }
}

// Bytes of memory for one thread's buffers.
inline std::int64_t memory_of(const VarlenAttention& given) {
  if (given.dtype == Dtype::float64) {
    return buffer_elements<Plain<double>>(given) * static_cast<std::int64_t>(sizeof(double));
  }
  return buffer_elements<Plain<float>>(given) * static_cast<std::int64_t>(sizeof(float));
}

inline void run(const VarlenAttentionForward& args, std::int64_t groups, std::int64_t from, std::int64_t step,
                void* memory) {
  switch (args.given.dtype) {
    case Dtype::float32:
      return run_units<float, Plain<float>>(args, groups, from, step, memory);
    case Dtype::float64:
      return run_units<double, Plain<double>>(args, groups, from, step, memory);
    case Dtype::bfloat16:
#if SENTCORE_ISA_HAS_BF16
      if (args.given.size % 2 == 0) return run_units<cpu::BFloat16, Pairs>(args, groups, from, step, memory);
#endif
      return run_units<cpu::BFloat16, Plain<float>>(args, groups, from, step, memory);
    case Dtype::float16:
      return run_units<cpu::Float16, Plain<float>>(args, groups, from, step, memory);
  }
}

}  // namespace
}  // namespace SENTCORE_ISA
}  // namespace sentcore
