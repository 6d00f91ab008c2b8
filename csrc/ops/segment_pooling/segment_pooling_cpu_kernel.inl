// Some columns of one sentence of segment_pooling on one instruction set; segment_pooling_cpu.cpp compiles it for each.

// clang-format off: in this order
#include "common/simd.inl"
#include "common/rows.inl"
// clang-format on

namespace sentcore {
namespace SENTCORE_ISA {

// The tokens [begin, end) of a sentence from `first` on that the sum goes over, and what it is multiplied by.
struct Segment {
  std::int64_t first, last;  // of the sentence
  std::int64_t begin, end;
  double factor;
};

SENTCORE_INLINE Segment segment_of(const SegmentPooling& args, std::int64_t sentence) {
  const std::int64_t first = args.cu_seqlens[sentence], last = args.cu_seqlens[sentence + 1];
  Segment s{first, last, args.skip < last - first ? first + args.skip : last, last, 0.0};
  if (s.begin == last) return s;
  const double count = static_cast<double>(last - s.begin);
  switch (args.mode) {
    case PoolingMode::cls:
      s.end = s.begin + 1;
      s.factor = 1.0;
      break;
    case PoolingMode::lasttoken:
      s.begin = last - 1;
      s.factor = 1.0;
      break;
    case PoolingMode::mean:
      s.factor = 1.0 / count;
      break;
    case PoolingMode::mean_sqrt_len_tokens:
      s.factor = 1.0 / root_of(count);
      break;
    case PoolingMode::weightedmean:  // the sum of the places begin - first + 1 to last - first
      s.factor = 2.0 / (count * static_cast<double>((s.begin - first) + (last - first) + 1));
      break;
    case PoolingMode::max:
      s.factor = 1.0;
      break;
  }
  return s;
}

// ---- forward ----

// `count` columns of x from `column` on, at most C vectors (one, unless all are whole), summed over the tokens in their
// order, or their maxima; NaN is larger than anything.
template <typename T, int C, PoolingMode mode>
SENTCORE_INLINE void pool_vectors(const SegmentPooling& args, const Segment& s, std::int64_t column, std::int64_t count,
                                  cpu::Wide<T>* out) {
  using A = cpu::Wide<T>;
  constexpr std::int64_t L = kLanes<A>;
  constexpr bool max = mode == PoolingMode::max;
  Vec<A> pooled[C];
#pragma GCC unroll 8
  for (int c = 0; c < C; ++c) pooled[c] = max ? splat<A>(-__builtin_inff()) : Vec<A>{};
  const T* row = static_cast<const T*>(args.x) + s.begin * args.hidden + column;
  for (std::int64_t token = s.begin; token < s.end; ++token, row += args.hidden) {
    const A weight = static_cast<A>(token - s.first + 1);
#pragma GCC unroll 8
    for (int c = 0; c < C; ++c) {
      const Vec<A> value = load_at(row + c * L, C == 1 ? count : L);
      if constexpr (max) {
        pooled[c] = (value > pooled[c]) | (value != value) ? value : pooled[c];
      } else {
        pooled[c] += mode == PoolingMode::weightedmean ? value * weight : value;
      }
    }
  }
  const bool any = s.begin < s.end;
#pragma GCC unroll 8
  for (int c = 0; c < C; ++c) {
    store_at(out + c * L, any ? pooled[c] * static_cast<A>(s.factor) : Vec<A>{}, C == 1 ? count : L);
  }
}

template <typename T, PoolingMode mode>
inline void pool(const SegmentPooling& args, const Segment& s, std::int64_t column, std::int64_t columns,
                 cpu::Wide<T>* out) {
  constexpr std::int64_t L = kLanes<cpu::Wide<T>>;
  std::int64_t j = 0;
  for (; j + 8 * L <= columns; j += 8 * L) pool_vectors<T, 8, mode>(args, s, column + j, L, out + j);
  for (; j < columns; j += L) {
    pool_vectors<T, 1, mode>(args, s, column + j, columns - j < L ? columns - j : L, out + j);
  }
}

template <typename T>
struct PoolPiece {
  using A = cpu::Wide<T>;

  static void run(const SegmentPooling& args, std::int64_t sentence, std::int64_t column, std::int64_t columns) {
    const Segment s = segment_of(args, sentence);
    A* const out = static_cast<A*>(args.out) + sentence * args.hidden + column;
    if (args.mode == PoolingMode::max) return pool<T, PoolingMode::max>(args, s, column, columns, out);
    if (args.mode == PoolingMode::weightedmean) {
      return pool<T, PoolingMode::weightedmean>(args, s, column, columns, out);
    }
    pool<T, PoolingMode::mean>(args, s, column, columns, out);
  }
};

template <typename A>
struct DotStep {
  const A *a, *b;
  Slots<A> sums;

  SENTCORE_INLINE void operator()(std::int64_t j, std::int64_t count, int slot) {
    sums.slot[slot] += load_at(a + j, count) * load_at(b + j, count);
  }
};
template <typename A>
SENTCORE_INLINE A dot(const A* a, const A* b, std::int64_t count) {
  DotStep<A> step{a, b, {}};
  over_row<A>(count, step);
  return step.sums.sum();
}

template <typename A>
SENTCORE_INLINE A divisor_of(A norm) {  // NaN stays
  return norm < A(1e-12) ? A(1e-12) : norm;
}

template <typename T>
struct NormalizeSentence {
  using A = cpu::Wide<T>;

  static void run(const SegmentPooling& args, std::int64_t sentence) {
    A* const out = static_cast<A*>(args.out) + sentence * args.hidden;
    const A norm = root_of(dot(out, out, args.hidden)), divisor = divisor_of(norm);
    static_cast<A*>(args.norm)[sentence] = norm;
    for (std::int64_t j = 0; j < args.hidden; ++j) out[j] /= divisor;
  }
};

// ---- backward ----

// grad_x of a token that counts; of a maximum, where x first is `highest`, and grad becomes zero there.
template <typename T, PoolingMode mode>
struct GradXStep {
  using A = cpu::Wide<T>;
  const T* x;
  const A* highest;
  A* grad;
  A weight;
  T* grad_x;

  SENTCORE_INLINE void operator()(std::int64_t j, std::int64_t count, int) {
    Vec<A> value = load(grad + j);
    if constexpr (mode == PoolingMode::max) {
      const auto here = load_at(x + j, count) == load(highest + j);
      store(grad + j, here ? Vec<A>{} : value);
      value = here ? value : Vec<A>{};
    }
    if constexpr (mode == PoolingMode::weightedmean) value *= weight;
    store_at(grad_x + j, value, count);
  }
};

template <typename T>
struct GradientPiece {
  using A = cpu::Wide<T>;

  template <PoolingMode mode>
  static void write(const SegmentPoolingBackward& args, const Segment& s, std::int64_t column, std::int64_t columns,
                    A* grad, const A* highest) {
    const std::int64_t hidden = args.given.hidden;
    for (std::int64_t token = s.first; token < s.last; ++token) {
      T* const grad_x = static_cast<T*>(args.grad_x) + token * hidden + column;
      if (token < s.begin || token >= s.end) {
        __builtin_memset(grad_x, 0, static_cast<std::size_t>(columns) * sizeof(T));
        continue;
      }
      GradXStep<T, mode> step{static_cast<const T*>(args.given.x) + token * hidden + column, highest, grad,
                              static_cast<A>(token - s.first + 1), grad_x};
      over_row<A>(columns, step);
    }
  }

  static void run(const SegmentPoolingBackward& args, std::int64_t sentence, std::int64_t column, std::int64_t columns,
                  void* grad_buffer, void* highest_buffer) {
    const SegmentPooling& given = args.given;
    const Segment s = segment_of(given, sentence);
    const A* const grad_out = static_cast<const A*>(args.grad_out) + sentence * given.hidden;
    const A* const out = static_cast<const A*>(given.out) + sentence * given.hidden;
    A* const grad = static_cast<A*>(grad_buffer);
    A* const highest = static_cast<A*>(highest_buffer);
    A along = 0, scale = static_cast<A>(s.factor);
    if (given.normalize) {
      const A norm = static_cast<const A*>(given.norm)[sentence], divisor = divisor_of(norm);
      if (norm > A(1e-12)) along = dot(grad_out, out, given.hidden);
      scale /= divisor;
    }
    for (std::int64_t j = 0; j < columns; ++j) {
      const A across = given.normalize ? grad_out[column + j] - out[column + j] * along : grad_out[column + j];
      grad[j] = across * scale;
    }
    switch (given.mode) {
      case PoolingMode::max:
        pool<T, PoolingMode::max>(given, s, column, columns, highest);
        return write<PoolingMode::max>(args, s, column, columns, grad, highest);
      case PoolingMode::weightedmean:
        return write<PoolingMode::weightedmean>(args, s, column, columns, grad, nullptr);
      default:
        return write<PoolingMode::mean>(args, s, column, columns, grad, nullptr);
    }
  }
};

inline void run_piece(const SegmentPooling& args, std::int64_t sentence, std::int64_t column, std::int64_t columns) {
  run_for_dtype<PoolPiece>(args.dtype, args, sentence, column, columns);
}
inline void run_normalize(const SegmentPooling& args, std::int64_t sentence) {
  run_for_dtype<NormalizeSentence>(args.dtype, args, sentence);
}
inline void run_gradient(const SegmentPoolingBackward& args, std::int64_t sentence, std::int64_t column,
                         std::int64_t columns, void* grad, void* highest) {
  run_for_dtype<GradientPiece>(args.given.dtype, args, sentence, column, columns, grad, highest);
}

}  // namespace SENTCORE_ISA
}  // namespace sentcore
