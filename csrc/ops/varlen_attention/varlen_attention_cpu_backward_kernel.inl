// The backward of one (sentence, head) on one instruction set; varlen_attention_cpu_backward.cpp compiles it for each.
//
//   P = exp(scale q k^T + options - lse)     dP = keep * (grad_out v^T)      dS = P * (dP - sum over keys of P * dP)
//   grad_q = scale dS k    grad_k = scale dS^T q    grad_v = (keep * P)^T grad_out    grad_bias = sum over sentences of
//   dS
//
// in tiles of kBlock keys and kQueries queries, so that memory is linear in the sentence (FlashAttention, Dao et al.
// 2022). Arithmetic is in A: float32, or float64 of float64. What is added to what depends on the sentence alone: a
// sentence gives the same bits in any batch and on any number of threads.

// clang-format off: in this order
#include "common/simd.inl"
#include "common/rows.inl"
#include "common/product.inl"
#include "ops/varlen_attention/varlen_attention_cpu_options.inl"
#include "ops/varlen_attention/varlen_attention_cpu_dropout.inl"
#include "ops/varlen_attention/varlen_attention_cpu_backward_tiles.inl"
// clang-format on

namespace sentcore {
namespace SENTCORE_ISA {
namespace {

// The head of a sentence that is computed: its first rows in T, and where its results go.
template <typename T>
struct Head {
  std::int64_t index;
  const T *q, *k, *v;           // [Sq, D], [Sk, D], [Sk, D], rows q_stride and kv_stride apart
  const T *grad_out, *out;      // [Sq, D], rows N * D apart
  T *grad_q, *grad_k, *grad_v;  // as q, k and v
  const cpu::Wide<T>* lse;      // [Sq], N apart
  cpu::Wide<T>* bias_sums;      // [>= Sq, bias_columns], or null: + dS
};

template <typename T>
inline Head<T> head_of(const VarlenAttentionBackward& args, const Sentence& s, std::int64_t index,
                       cpu::Wide<T>* bias_sums) {
  const VarlenAttention& given = args.given;
  const std::int64_t in_q = s.first_q * given.q_stride + index * given.size;
  const std::int64_t in_kv = s.first_k * given.kv_stride + index * given.size;
  const std::int64_t row = s.first_q * given.heads + index;
  Head<T> head;
  head.index = index;
  head.q = static_cast<const T*>(given.q) + in_q;
  head.k = static_cast<const T*>(given.k) + in_kv;
  head.v = static_cast<const T*>(given.v) + in_kv;
  head.grad_out = static_cast<const T*>(args.grad_out) + row * given.size;
  head.out = static_cast<const T*>(args.out) + row * given.size;
  head.grad_q = static_cast<T*>(args.grad_q) + in_q;
  head.grad_k = static_cast<T*>(args.grad_k) + in_kv;
  head.grad_v = static_cast<T*>(args.grad_v) + in_kv;
  head.lse = reinterpret_cast<const cpu::Wide<T>*>(args.lse) + row;
  head.bias_sums = bias_sums;
  return head;
}

// The block of keys that is computed. `columns` is `count` up to a whole vector.
struct Keys {
  std::int64_t first, count, columns, stride;
};

// P and dS of the rows [row, row + rows) against a block of keys, into rows of b.p and b.grad_s from `at` on, and what
// they add to grad_q. At most kRows rows; their q and grad_out are at `at` in b.q and b.grad_out.
template <typename T, typename A = cpu::Wide<T>>
inline void rows_of_scores(const VarlenAttentionBackward& args, const Sentence& s, const Head<T>& head,
                           const Keys& keys, std::int64_t row, std::int64_t rows, std::int64_t at, bool options,
                           bool first_of_sum, const BackwardBuffers<A>& b) {
  typedef Plain<A> P;
  const VarlenAttention& given = args.given;
  const std::int64_t width = padded_size<A>(given), stride = keys.stride;
  A* const p = b.p + at * stride;
  A* const grad_s = b.grad_s + at * stride;
  std::int64_t begin = 0, end = keys.columns;
  if (options) {  // The columns that any of these rows sees; the rest is zero and computed by nobody.
    const std::int64_t last = keys.first + keys.count;
    begin = (seen(given, s, row, keys.first, last).begin - keys.first) / kAlign * kAlign;
    end = (seen(given, s, row + rows - 1, keys.first, last).end - keys.first + kAlign - 1) / kAlign * kAlign;
    if (end > keys.columns) end = keys.columns;
    if (begin >= end) begin = end = 0;
    for (std::int64_t r = 0; r < rows; ++r) {
      clear(p + r * stride, begin), clear(grad_s + r * stride, begin);
      clear(p + r * stride + end, keys.columns - end), clear(grad_s + r * stride + end, keys.columns - end);
    }
    if (begin == end) return;
  }
  const std::int64_t columns = end - begin, count = end < keys.count ? columns : keys.count - begin;
  multiply<P, false>(rows, b.q + at * width, width, b.k_columns + begin, stride, given.size, columns, p + begin,
                     stride);
  multiply<P, false>(rows, b.grad_out + at * width, width, b.v_columns + begin, stride, given.size, columns,
                     grad_s + begin, stride);
  const bool whole = s.length_k <= kBlock;
  const A factor = options ? A(1) : static_cast<A>(given.exact_scale);
  for (std::int64_t r = 0; r < rows; ++r) {
    A* const p_row = p + r * stride + begin;
    A* const grad_row = grad_s + r * stride + begin;
    if (options) apply_options(given, s, head.index, row + r, keys.first + begin, count, p_row);
    if (given.seed != nullptr) keep_row(given, s, head.index, row + r, keys.first + begin, count, b.keep);
    softmax_gradient_row(p_row, grad_row, count, columns, factor, head.lse[(row + r) * given.heads],
                         given.seed != nullptr ? b.keep : nullptr, whole ? nullptr : b.delta + row + r);
    if (head.bias_sums != nullptr) {
      A* const sums = head.bias_sums + (row + r) * args.bias_columns + keys.first + begin;
      for (std::int64_t j = 0; j < count; ++j) sums[j] += grad_row[j];
    }
  }
  A* const grad_q = b.grad_q + row * width;
  const A* const k = b.k + begin * width;
  if (first_of_sum) {
    multiply<P, false>(rows, grad_s + begin, stride, k, width, count, width, grad_q, width);
  } else {
    multiply<P, true>(rows, grad_s + begin, stride, k, width, count, width, grad_q, width);
  }
}

// sums [keys, D] = (or +=) weights [queries, keys]^T values [queries, D]
template <bool accumulate, typename A>
inline void add_to_keys(const A* weights, const Keys& keys, const A* values, std::int64_t queries, std::int64_t width,
                        A* sums) {
  for (std::int64_t j = 0; j < keys.count; j += kRows) {
    const std::int64_t rows = keys.count - j < kRows ? keys.count - j : kRows;
    multiply<Plain<A>, accumulate, true>(rows, weights + j, keys.stride, values, width, queries, width,
                                         sums + j * width, width);
  }
}

template <typename T, typename A = cpu::Wide<T>>
inline void gradients(const VarlenAttentionBackward& args, const Sentence& s, const Head<T>& head,
                      const BackwardBuffers<A>& b) {
  const VarlenAttention& given = args.given;
  const std::int64_t size = given.size, width = padded_size<A>(given), row_out = given.heads * size;
  const bool options = has_options(given), starts_at_zero = options || s.length_k == 0;
  const A scale = static_cast<A>(given.exact_scale);
  if (starts_at_zero) clear(b.grad_q, (s.length_q + kRows) * width);
  // A row that has all its keys in one block sums P * dP itself; `out` is rounded to T.
  if (s.length_k > kBlock) sum_deltas(head.grad_out, head.out, row_out, s.length_q, size, b.delta);
  for (std::int64_t first = 0; first < s.length_k; first += kBlock) {
    Keys keys;
    keys.first = first;
    keys.count = s.length_k - first < kBlock ? s.length_k - first : kBlock;
    keys.columns = (keys.count + kLanes<A> - 1) / kLanes<A> * kLanes<A>;
    keys.stride = keys.columns + kLanes<A>;  // never a power of two, whose rows would share cache sets
    load_rows(head.k + first * given.kv_stride, given.kv_stride, keys.count, keys.columns, size, width, b.k);
    transpose_rows(b.k, width, keys.columns, b.k_columns, keys.stride);
    // The values' rows stand for a moment where their gradient will.
    load_rows(head.v + first * given.kv_stride, given.kv_stride, keys.count, keys.columns, size, width, b.grad_v);
    transpose_rows(b.grad_v, width, keys.columns, b.v_columns, keys.stride);
    bool begun = false;  // the sums of these keys
    for (std::int64_t row = 0; row < s.length_q; row += kQueries) {
      const std::int64_t rows = s.length_q - row < kQueries ? s.length_q - row : kQueries;
      if (options) {  // does any row of these see a key of this block?
        const Range top = seen(given, s, row, first, first + keys.count);
        const Range bottom = seen(given, s, row + rows - 1, first, first + keys.count);
        if (top.begin >= first + keys.count || bottom.end <= first) continue;
      }
      load_rows(head.q + row * given.q_stride, given.q_stride, rows, rows, size, width, b.q);
      load_rows(head.grad_out + row * row_out, row_out, rows, rows, size, width, b.grad_out);
      for (std::int64_t at = 0; at < rows; at += kRows) {
        rows_of_scores(args, s, head, keys, row + at, rows - at < kRows ? rows - at : kRows, at, options,
                       first == 0 && !starts_at_zero, b);
      }
      if (begun) {
        add_to_keys<true>(b.p, keys, b.grad_out, rows, width, b.grad_v);
        add_to_keys<true>(b.grad_s, keys, b.q, rows, width, b.grad_k);
      } else {
        add_to_keys<false>(b.p, keys, b.grad_out, rows, width, b.grad_v);
        add_to_keys<false>(b.grad_s, keys, b.q, rows, width, b.grad_k);
      }
      begun = true;
    }
    if (!begun) clear(b.grad_v, keys.count * width), clear(b.grad_k, keys.count * width);
    store_rows(b.grad_k, width, keys.count, size, scale, head.grad_k + first * given.kv_stride, given.kv_stride);
    store_rows(b.grad_v, width, keys.count, size, A(1), head.grad_v + first * given.kv_stride, given.kv_stride);
  }
  store_rows(b.grad_q, width, s.length_q, size, scale, head.grad_q, given.q_stride);
}

// The units from, from + step, ... of all: unit u is the u % groups-th share of the heads of sentence u / groups.
template <typename T>
struct BackwardUnits {
  static void run(const VarlenAttentionBackward& args, std::int64_t groups, std::int64_t from, std::int64_t step,
                  void* const& memory) {
    typedef cpu::Wide<T> A;
    const VarlenAttention& given = args.given;
    const BackwardBuffers<A> buffers = BackwardBuffers<A>::cut(given, memory);
    for (std::int64_t unit = from; unit < given.sentences * groups; unit += step) {
      const Sentence s = sentence_of(given, unit / groups);
      const std::int64_t share = unit % groups, last = (share + 1) * given.heads / groups;
      for (std::int64_t index = share * given.heads / groups; index < last; ++index) {
        gradients<T>(args, s, head_of<T>(args, s, index, nullptr), buffers);
      }
    }
  }
};

// A head of all sentences, and its share of the bias' gradient.
template <typename T>
struct BackwardHead {
  static void run(const VarlenAttentionBackward& args, std::int64_t index, void* const& memory) {
    typedef cpu::Wide<T> A;
    const VarlenAttention& given = args.given;
    const BackwardBuffers<A> buffers = BackwardBuffers<A>::cut(given, memory);
    const std::int64_t elements = static_cast<std::int64_t>(args.bias_rows) * args.bias_columns, at = index * elements;
    A* const sums = static_cast<A*>(args.partial != nullptr ? static_cast<void*>(args.partial) : args.grad_bias) + at;
    clear(sums, elements);
    for (std::int64_t sentence = 0; sentence < given.sentences; ++sentence) {
      const Sentence s = sentence_of(given, sentence);
      gradients<T>(args, s, head_of<T>(args, s, index, sums), buffers);
    }
    if (args.partial == nullptr) return;
    for (std::int64_t j = 0; j < elements; ++j) {
      if (given.bias_is_float32) {
        static_cast<float*>(args.grad_bias)[at + j] = static_cast<float>(sums[j]);
      } else {
        cpu::narrow(sums[j], static_cast<T*>(args.grad_bias)[at + j]);
      }
    }
  }
};

// Bytes of memory for one thread's buffers.
inline std::int64_t backward_memory(const VarlenAttention& given) {
  if (given.dtype == Dtype::float64) return BackwardBuffers<double>::bytes(given);
  return BackwardBuffers<float>::bytes(given);
}
inline void run_units(const VarlenAttentionBackward& args, std::int64_t groups, std::int64_t from, std::int64_t step,
                      void* memory) {
  run_for_dtype<BackwardUnits>(args.given.dtype, args, groups, from, step, memory);
}
inline void run_head(const VarlenAttentionBackward& args, std::int64_t head, void* memory) {
  run_for_dtype<BackwardHead>(args.given.dtype, args, head, memory);
}

}  // namespace
}  // namespace SENTCORE_ISA
}  // namespace sentcore
