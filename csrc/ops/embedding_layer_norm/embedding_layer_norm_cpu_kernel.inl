// Rows of embedding_layer_norm and of a table's gradient on one instruction set; embedding_layer_norm_cpu.cpp compiles
// it for each.

// clang-format off: in this order
#include "common/simd.inl"
#include "common/rows.inl"
#include "common/layer_norm.inl"
// clang-format on

namespace sentcore {
namespace SENTCORE_ISA {
namespace {

// What is normalized is the sum as rounded to T, which the backward reads.
template <typename T>
struct GatherStep {
  using A = cpu::Wide<T>;
  const T *word, *token_type, *position;  // [H], the last two or null
  T* total;                               // [H], or null
  A* row;                                 // [H]
  Slots<A> sums;

  SENTCORE_INLINE void operator()(std::int64_t j, std::int64_t count, int slot) {
    Vec<A> value = load_at(word + j, count);
    if (token_type != nullptr) value += load_at(token_type + j, count);
    if (position != nullptr) value += load_at(position + j, count);
    value = rounded<T>(value);
    if (total != nullptr) store_at(total + j, value, count);
    store(row + j, value);
    sums.slot[slot] += value;
  }
};

template <typename T>
struct EmbeddingRows {
  using A = cpu::Wide<T>;
  static constexpr std::int64_t kAhead = 2;  // tokens

  static SENTCORE_INLINE const T* row_of(const EmbeddingTable& table, std::int64_t token, std::int64_t hidden) {
    return table.table == nullptr ? nullptr : static_cast<const T*>(table.table) + table.ids[token] * hidden;
  }
  // Rows of the word table lie anywhere; no hardware looks ahead.
  static SENTCORE_INLINE void prefetch(const T* row, std::int64_t hidden) {
    for (std::int64_t j = 0; j < hidden; j += 64 / static_cast<std::int64_t>(sizeof(T))) __builtin_prefetch(row + j);
  }
  static void run(const EmbeddingLayerNorm& args, const void* weight, const void* norm_bias, void* buffer,
                  std::int64_t begin, std::int64_t end) {
    const std::int64_t hidden = args.hidden;
    A* const row = static_cast<A*>(buffer);
    for (std::int64_t token = begin; token < end; ++token) {
      if (token + kAhead < end) prefetch(row_of(args.tables[0], token + kAhead, hidden), hidden);
      T* const total = args.total == nullptr ? nullptr : static_cast<T*>(args.total) + token * hidden;
      GatherStep<T> gather{row_of(args.tables[0], token, hidden),
                           row_of(args.tables[1], token, hidden),
                           row_of(args.tables[2], token, hidden),
                           total,
                           row,
                           {}};
      over_row<A>(hidden, gather);
      const RowStats<A> stats = stats_of(row, gather.sums.sum(), hidden, args.eps);
      if (args.mean != nullptr) {
        static_cast<A*>(args.mean)[token] = stats.mean;
        static_cast<A*>(args.rstd)[token] = stats.rstd;
      }
      normalize_row<T>(row, stats, static_cast<const A*>(weight), static_cast<const A*>(norm_bias), hidden,
                       static_cast<T*>(args.out) + token * hidden);
    }
  }
};

template <typename T>
struct AddRowStep {
  using A = cpu::Wide<T>;
  const T* from;
  A* to;

  SENTCORE_INLINE void operator()(std::int64_t j, std::int64_t count, int) {
    store(to + j, load(to + j) + load_at(from + j, count));
  }
};

template <typename T>
struct StoreStep {
  using A = cpu::Wide<T>;
  const A* from;
  T* to;

  SENTCORE_INLINE void operator()(std::int64_t j, std::int64_t count, int) { store_at(to + j, load(from + j), count); }
};

template <typename T>
struct GradientOfRow {
  using A = cpu::Wide<T>;

  static void run(const EmbeddingGradient& args, const EmbeddingPlaces& places, std::int64_t row, std::int64_t column,
                  std::int64_t columns, void* buffer) {
    const std::int64_t begin = places.first[row], end = places.first[row + 1];
    T* const out = static_cast<T*>(args.table) + row * args.hidden + column;
    if (begin == end) {
      __builtin_memset(out, 0, static_cast<std::size_t>(columns) * sizeof(T));
      return;
    }
    A* const sum = static_cast<A*>(buffer);
    __builtin_memset(sum, 0, static_cast<std::size_t>(columns) * sizeof(A));
    for (std::int64_t i = begin; i < end; ++i) {
      AddRowStep<T> add{static_cast<const T*>(args.grad) + places.order[i] * args.hidden + column, sum};
      over_row<A>(columns, add);
    }
    StoreStep<T> write{sum, out};
    over_row<A>(columns, write);
  }
};

inline void run_rows(const EmbeddingLayerNorm& args, const void* weight, const void* norm_bias, void* buffer,
                     std::int64_t begin, std::int64_t end) {
  run_for_dtype<EmbeddingRows>(args.dtype, args, weight, norm_bias, buffer, begin, end);
}
inline void run_gradient(const EmbeddingGradient& args, const EmbeddingPlaces& places, std::int64_t row,
                         std::int64_t column, std::int64_t columns, void* buffer) {
  run_for_dtype<GradientOfRow>(args.dtype, args, places, row, column, columns, buffer);
}

}  // namespace
}  // namespace SENTCORE_ISA
}  // namespace sentcore
