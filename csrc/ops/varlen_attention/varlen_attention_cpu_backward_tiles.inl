// What the backward's products read and write: buffers of one thread, rows to and from them, and the gradient of a row
// of probabilities; included by varlen_attention_cpu_backward_kernel.inl.

namespace sentcore {
namespace SENTCORE_ISA {
namespace {

constexpr std::int64_t kBlock = 256;  // keys; with kQueries rows of scores their buffers fit in L2
constexpr std::int64_t kQueries =
    72;  // whole tiles of kRows rows: what a tile writes beyond a block would be added twice
constexpr std::int64_t kAlign = 16;  // columns that a row begins to be computed at: whole vectors, whole draws
static_assert(kQueries % kRows == 0, "whole tiles");

// D: the head size rounded up to a vector.
template <typename A>
SENTCORE_INLINE std::int64_t padded_size(const VarlenAttention& given) {
  return (given.size + kLanes<A> - 1) / kLanes<A> * kLanes<A>;
}

// K: keys of a block, stride: K and a vector; R: queries of a block, each with a tile of kRows rows more.
template <typename A>
struct BackwardBuffers {
  A* k;          // [K, D]
  A* k_columns;  // [D, stride]: k transposed
  A* v_columns;  // [D, stride]: v transposed
  A* grad_k;     // [K + kRows, D]
  A* grad_v;     // [K + kRows, D]
  A* q;          // [R, D]
  A* grad_out;   // [R, D]
  A* p;          // [R, stride]: scores, probabilities, what dropout leaves of them
  A* grad_s;     // [R, stride]: gradients of those, then of scores
  A* grad_q;     // [Sq + kRows, D]
  A* keep;       // [stride + kWords]: what dropout multiplies a row by
  A* delta;      // [Sq]: the sum over D of grad_out * out

  // `memory` null only counts. Returns the number of elements.
  std::int64_t place(const VarlenAttention& given, A* memory) {
    const std::int64_t width = padded_size<A>(given), queries = given.max_seqlen_q + kRows;
    std::int64_t keys = given.max_seqlen_k < kBlock ? given.max_seqlen_k : kBlock;
    keys = (keys + kAlign - 1) / kAlign * kAlign;
    const std::int64_t stride = keys + kLanes<A>, rows = queries < kQueries ? queries : kQueries;
    A** const buffers[] = {&k,        &k_columns, &v_columns, &grad_k, &grad_v, &q,
                           &grad_out, &p,         &grad_s,    &grad_q, &keep,   &delta};
    const std::int64_t sizes[] = {keys * width,           width * stride,  width * stride,  (keys + kRows) * width,
                                  (keys + kRows) * width, rows * width,    rows * width,    rows * stride,
                                  rows * stride,          queries * width, stride + kWords, queries};
    std::int64_t used = 0;
    for (int i = 0; i < 12; ++i) {
      if (memory != nullptr) *buffers[i] = memory + used;
      used += (sizes[i] + kAlign - 1) / kAlign * kAlign;
    }
    return used;
  }

  static BackwardBuffers cut(const VarlenAttention& given, void* memory) {
    BackwardBuffers buffers;
    buffers.place(given, static_cast<A*>(memory));
    return buffers;
  }
  static std::int64_t bytes(const VarlenAttention& given) {
    BackwardBuffers none;
    return none.place(given, nullptr) * static_cast<std::int64_t>(sizeof(A));
  }
};

template <typename A>
SENTCORE_INLINE void clear(A* values, std::int64_t count) {
  if (count > 0) __builtin_memset(values, 0, static_cast<std::size_t>(count) * sizeof(A));
}

// ---- rows ----

// source [count, size] -> target [rows, width], zeros beyond either.
template <typename T, typename A>
inline void load_rows(const T* source, std::int64_t source_stride, std::int64_t count, std::int64_t rows,
                      std::int64_t size, std::int64_t width, A* target) {
  constexpr std::int64_t L = kLanes<A>;
  for (std::int64_t r = 0; r < count; ++r) {
    const T* const row = source + r * source_stride;
    for (std::int64_t d = 0; d < width; d += L) store(target + r * width + d, load_at(row + d, size - d));
  }
  clear(target + count * width, (rows - count) * width);
}

// source [count, width] * scale -> target [count, size]
template <typename T, typename A>
inline void store_rows(const A* source, std::int64_t width, std::int64_t count, std::int64_t size, A scale, T* target,
                       std::int64_t target_stride) {
  constexpr std::int64_t L = kLanes<A>;
  for (std::int64_t r = 0; r < count; ++r) {
    T* const row = target + r * target_stride;
    for (std::int64_t d = 0; d < size; d += L) store_at(row + d, load(source + r * width + d) * scale, size - d);
  }
}

// rows [columns, width], both whole vectors -> [width, stride]
template <typename A>
inline void transpose_rows(const A* rows, std::int64_t width, std::int64_t columns, A* target, std::int64_t stride) {
  constexpr std::int64_t L = kLanes<A>;
  for (std::int64_t j = 0; j < columns; j += L) {
    for (std::int64_t d = 0; d < width; d += L) {
      Vec<A> square[L];
#pragma GCC unroll 16
      for (int i = 0; i < L; ++i) square[i] = load(rows + (j + i) * width + d);
      transpose<A>(square);
#pragma GCC unroll 16
      for (int i = 0; i < L; ++i) store(target + (d + i) * stride + j, square[i]);
    }
  }
}

// delta [count]: the sum over D of grad_out * out, which is the sum over keys of P * dP.
template <typename T, typename A>
inline void sum_deltas(const T* grad_out, const T* out, std::int64_t stride, std::int64_t count, std::int64_t size,
                       A* delta) {
  constexpr std::int64_t L = kLanes<A>;
  for (std::int64_t r = 0; r < count; ++r) {
    Vec<A> sum = {};
    for (std::int64_t d = 0; d < size; d += L) {
      sum += load_at(grad_out + r * stride + d, size - d) * load_at(out + r * stride + d, size - d);
    }
    delta[r] = sum_of<A>(sum);
  }
}

// ---- probabilities ----

// p [count, padded to `columns`]: scores become keep * P; grad: what v gives of grad_out becomes dS. keep: null
// without dropout. delta: the row's sum over keys of P * dP. It is null where these are all its keys: their own maximum
// and total make P then, so that one key alone has exactly 1 and no gradient, which exp(score - lse) misses by a
// rounding.
template <typename A>
SENTCORE_INLINE void softmax_gradient_row(A* p, A* grad, std::int64_t count, std::int64_t columns, A factor, A lse,
                                          const A* keep, const A* delta) {
  constexpr std::int64_t L = kLanes<A>;
  if (lse == -__builtin_inff()) {  // sees nothing, and exp(-inf - -inf) would be no number
    clear(p, columns), clear(grad, columns);
    return;
  }
  store(p + columns - L, lanes_before<A>(load(p + columns - L), columns - L, count, -__builtin_inff()));
  A reached = 0, base = lse;
  if (delta == nullptr) {
    Vec<A> top = splat(static_cast<A>(-__builtin_inff()));
    for (std::int64_t j = 0; j < columns; j += L) top = larger<A>(top, load(p + j));
    reached = largest_of<A>(top), base = 0;
  }
  Vec<A> total = {}, sum = {};
  for (std::int64_t j = 0; j < columns; j += L) {
    const Vec<A> probability = exp_of((load(p + j) - reached) * factor - base);
    Vec<A> gradient = load(grad + j);
    if (keep != nullptr) {
      gradient *= load(keep + j);
      store(grad + j, gradient);
    }
    store(p + j, probability);
    total += probability;
    sum += probability * gradient;
  }
  const A inverse = delta == nullptr ? A(1) / sum_of<A>(total) : A(1);
  const A mean = delta == nullptr ? sum_of<A>(sum) * inverse : *delta;
  for (std::int64_t j = 0; j < columns; j += L) {
    const Vec<A> probability = load(p + j) * inverse;
    store(grad + j, probability * (load(grad + j) - mean));
    store(p + j, keep != nullptr ? probability * load(keep + j) : probability);
  }
}

}  // namespace
}  // namespace SENTCORE_ISA
}  // namespace sentcore
