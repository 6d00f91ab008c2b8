// Rows of x with panels of the weight on one instruction set; int8_linear_cpu.cpp compiles it for each.
//
// The rounded x is signed and the packed weight is unsigned, w + 128, as the instructions want them; 128 times the sum
// of a row's x is taken off its products at the end.

// clang-format off: in this order
#include "common/simd.inl"
#include "ops/int8_linear/int8_linear_cpu_activations.inl"
#include "ops/int8_linear/int8_linear_cpu_rows.inl"
#include "ops/int8_linear/int8_linear_cpu_results.inl"
// clang-format on

namespace sentcore {
namespace SENTCORE_ISA {
namespace {

constexpr int kTileRows = SENTCORE_VECTOR_COUNT >= 32 ? (SENTCORE_ISA_HAS_VNNI ? 12 : 9) : 4;

constexpr std::int64_t kAhead = 32;  // steps of a panel that are asked for ahead: with few tokens it comes from memory

// Bytes of memory for the rows of a task, which are computed in whole tiles and written in whole vectors.
inline std::int64_t memory_of(std::int64_t rows, std::int64_t depth) {
  return (rows + kTileRows) * steps_of(depth) * kWords * 4 + beside_words(rows + kTileRows) + 2 * SENTCORE_VECTOR_BYTES;
}

// sum + the products of halves, added in pairs.
SENTCORE_INLINE IntVector add_halves(IntVector sum, IntVector a, IntVector b) {
#if SENTCORE_VECTOR_BYTES == 64
  return sum + (IntVector)_mm512_madd_epi16((__m512i)a, (__m512i)b);
#elif SENTCORE_VECTOR_BYTES == 32
  return sum + (IntVector)_mm256_madd_epi16((__m256i)a, (__m256i)b);
#elif defined(__SSE2__)
  return sum + (IntVector)_mm_madd_epi16((__m128i)a, (__m128i)b);
#else
  return sum + ((a << 16) >> 16) * ((b << 16) >> 16) + (a >> 16) * (b >> 16);
#endif
}

// The upper byte of each half, without a sign.
SENTCORE_INLINE IntVector high_bytes(IntVector w) {
#if SENTCORE_VECTOR_BYTES == 64
  return (IntVector)_mm512_srli_epi16((__m512i)w, 8);
#elif SENTCORE_VECTOR_BYTES == 32
  return (IntVector)_mm256_srli_epi16((__m256i)w, 8);
#else
  return (w >> 8) & splat_int(0x00ff00ff);
#endif
}

// sum + w * x over 4 inputs; w holds them as unsigned bytes for each lane, `words` the row's.
SENTCORE_INLINE IntVector add_products(IntVector sum, IntVector w, const std::int32_t* words) {
#if SENTCORE_ISA_HAS_VNNI
  return (IntVector)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)w, _mm512_set1_epi32(words[0]));
#else
  const IntVector even = w & splat_int(0x00ff00ff), odd = high_bytes(w);
  return add_halves(add_halves(sum, even, splat_int(words[0])), odd, splat_int(words[1]));
#endif
}

// out [R rows, C vectors of columns] of rows from `row` on with the columns from `column` of a panel on.
template <typename T, Int8Activation activation, int R, int C>
SENTCORE_INLINE void multiply_int8_tile(const Int8Rows& rows, std::int64_t row, const std::uint8_t* panel, int column,
                                        const PanelColumns& columns, std::int64_t count, T* out,
                                        std::int64_t out_stride) {
  constexpr int L = kLanes<float>;
  const std::int64_t steps = rows.stride / kWords;
  const std::int32_t* words = rows.words + row * rows.stride;
  IntVector sums[R][C] = {};
  for (std::int64_t k = 0; k < steps; ++k) {
    IntVector w[C];
    __builtin_prefetch(panel + (k + kAhead) * kInt8Columns * kInt8Depth + column * kInt8Depth);
    __builtin_prefetch(panel + (k + kAhead) * kInt8Columns * kInt8Depth + (column + L) * kInt8Depth);
#pragma GCC unroll 2
    for (int j = 0; j < C; ++j) {
      __builtin_memcpy(&w[j], panel + (k * kInt8Columns + column + j * L) * kInt8Depth, sizeof(w[j]));
    }
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 2
      for (int j = 0; j < C; ++j) sums[r][j] = add_products(sums[r][j], w[j], words + r * rows.stride + k * kWords);
    }
  }
#pragma GCC unroll 2
  for (int j = 0; j < C; ++j) {
    const std::int64_t first = column + j * L;
    const Vec<float> scale = load(columns.scale + first), bias = load(columns.bias + first);
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r) {
      const Vec<float> result = result_of<T, activation>(sums[r][j], rows, row + r, panel, first, scale, bias);
      if (first + L <= count) {
        store_narrow(out + r * out_stride + first, result);
      } else {
        T values[L];
        store_narrow(values, result);
        for (std::int64_t i = first; i < count; ++i) out[r * out_stride + i] = values[i - first];
      }
    }
  }
}

// A function of its own: a caller's values in registers would leave too few for the sums.
template <typename T, Int8Activation activation, int R>
__attribute__((noinline)) void multiply_int8_panel(const Int8Rows& rows, std::int64_t row, const std::uint8_t* panel,
                                                   const PanelColumns& columns, std::int64_t count, T* out,
                                                   std::int64_t out_stride) {
  constexpr int kStep = 2 * kLanes<float>;
  for (int column = 0; column < kInt8Columns && column < count; column += kStep) {
    multiply_int8_tile<T, activation, R, 2>(rows, row, panel, column, columns, count, out, out_stride);
  }
}

template <typename T, Int8Activation activation>
inline void run_int8(const Int8Linear& args, std::int64_t first_row, std::int64_t last_row, std::int64_t first_panel,
                     std::int64_t last_panel, void* memory) {
  const std::int64_t count = last_row - first_row, steps = steps_of(args.depth);
  Int8Rows rows;
  cut_beside_words(rows, count + kTileRows, memory);
  rows.words = rows.places + count + kTileRows;
  rows.width = rows.stride = steps * kWords;
  const T* x = static_cast<const T*>(args.x) + first_row * args.depth;
  for (std::int64_t r = 0; r < count; ++r) round_row(x + r * args.depth, args.depth, rows, r);

  for (std::int64_t p = first_panel; p < last_panel; ++p) {
    const std::uint8_t* panel = args.weight + p * steps * kInt8Columns * kInt8Depth;
    const std::int64_t first = p * kInt8Columns;
    const std::int64_t inside = args.columns - first < kInt8Columns ? args.columns - first : kInt8Columns;
    const PanelColumns columns = columns_of(args, first, inside);
    T* out = static_cast<T*>(args.out) + first_row * args.columns + first;
    std::int64_t r = 0;
    for (; r + kTileRows <= count; r += kTileRows) {
      multiply_int8_panel<T, activation, kTileRows>(rows, r, panel, columns, inside, out + r * args.columns,
                                                    args.columns);
    }
    for (; r + kTileRows / 3 <= count; r += kTileRows / 3) {
      multiply_int8_panel<T, activation, kTileRows / 3>(rows, r, panel, columns, inside, out + r * args.columns,
                                                        args.columns);
    }
    for (; r < count; ++r) {
      multiply_int8_panel<T, activation, 1>(rows, r, panel, columns, inside, out + r * args.columns, args.columns);
    }
  }
}

template <typename T>
inline void run_activation(const Int8Linear& args, std::int64_t first_row, std::int64_t last_row,
                           std::int64_t first_panel, std::int64_t last_panel, void* memory) {
  switch (args.activation) {
    case Int8Activation::none:
      return run_int8<T, Int8Activation::none>(args, first_row, last_row, first_panel, last_panel, memory);
    case Int8Activation::relu:
      return run_int8<T, Int8Activation::relu>(args, first_row, last_row, first_panel, last_panel, memory);
    case Int8Activation::gelu:
      return run_int8<T, Int8Activation::gelu>(args, first_row, last_row, first_panel, last_panel, memory);
    case Int8Activation::gelu_tanh:
      return run_int8<T, Int8Activation::gelu_tanh>(args, first_row, last_row, first_panel, last_panel, memory);
  }
}

inline void run(const Int8Linear& args, std::int64_t first_row, std::int64_t last_row, std::int64_t first_panel,
                std::int64_t last_panel, void* memory) {
  if (args.dtype == Dtype::bfloat16) {
    return run_activation<cpu::BFloat16>(args, first_row, last_row, first_panel, last_panel, memory);
  }
  run_activation<float>(args, first_row, last_row, first_panel, last_panel, memory);
}

}  // namespace
}  // namespace SENTCORE_ISA
}  // namespace sentcore
