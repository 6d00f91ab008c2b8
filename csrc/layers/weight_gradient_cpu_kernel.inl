// Tiles of a weight's gradient on one instruction set; weight_gradient_cpu.cpp compiles it for each.

#include "common/simd.inl"

namespace sentcore {
namespace SENTCORE_ISA {
namespace {

// A tile of the weight is held in registers while the tokens of a block go past it.
constexpr int kTileRows = SENTCORE_VECTOR_COUNT >= 32 ? 8 : 6;
constexpr int kTileVectors = SENTCORE_VECTOR_COUNT >= 32 ? 3 : 2;
constexpr std::int64_t kTokensAtOnce = 16;  // between two requests for what is read next
constexpr std::int64_t kTileColumns = kTileVectors * kLanes<float>;

inline GradientTile gradient_tile() { return {kTileRows, kTileColumns}; }

// Columns [first, first + width) of tokens x `stride` -> packed [tokens, width], 0 beyond `columns`; and so on for
// `strips` of them, each [tokens, width] behind the one before.
template <std::int64_t width>
SENTCORE_INLINE void pack_strips(const float* x, std::int64_t stride, std::int64_t columns, std::int64_t first,
                                 std::int64_t strips, std::int64_t tokens, float* packed) {
  for (std::int64_t t = 0; t < tokens; ++t, x += stride) {
    float* target = packed + t * width;
    std::int64_t column = first;
    for (std::int64_t s = 0; s < strips; ++s, column += width, target += tokens * width) {
      if (column + width <= columns) {
        __builtin_memcpy(target, x + column, width * sizeof(float));
      } else {
        __builtin_memset(target, 0, width * sizeof(float));
        __builtin_memcpy(target, x + column, static_cast<std::size_t>(columns - column) * sizeof(float));
      }
    }
  }
}
inline void pack_columns(const PackedStrips& args) {
  pack_strips<kTileColumns>(args.x, args.stride, args.columns, args.first, args.strips, args.tokens, args.packed);
}
inline void pack_rows(const PackedStrips& args) {
  pack_strips<kTileRows>(args.x, args.stride, args.columns, args.first, args.strips, args.tokens, args.packed);
}

// grad [tokens, a tile's rows], x [tokens, a tile's columns], both packed; the first `rows` and `columns` of the tile
// are written, or added where the block of tokens is not the first. out: a pointer for each row, or null. What is read
// next is asked for beside the products, `ahead_step` bytes of it a token.
inline void multiply_gradients(const float* grad, const float* x, std::int64_t tokens, bool first, int rows,
                               std::int64_t columns, float* const* out, const char* ahead, std::int64_t ahead_step) {
  constexpr int L = kLanes<float>;
  Vec<float> sums[kTileRows][kTileVectors];
#pragma GCC unroll 8
  for (int r = 0; r < kTileRows; ++r) {
#pragma GCC unroll 3
    for (int j = 0; j < kTileVectors; ++j) sums[r][j] = Vec<float>{};
  }
  for (std::int64_t t = 0; t < tokens;) {
    const std::int64_t end = t + kTokensAtOnce < tokens ? t + kTokensAtOnce : tokens;
    for (const char* line = ahead + t * ahead_step; line < ahead + end * ahead_step; line += 64) {
      __builtin_prefetch(line);
    }
    for (; t < end; ++t, grad += kTileRows, x += kTileColumns) {
      Vec<float> values[kTileVectors];
#pragma GCC unroll 3
      for (int j = 0; j < kTileVectors; ++j) values[j] = load(x + j * L);
#pragma GCC unroll 8
      for (int r = 0; r < kTileRows; ++r) {
#pragma GCC unroll 3
        for (int j = 0; j < kTileVectors; ++j) sums[r][j] += grad[r] * values[j];
      }
    }
  }
  if (columns == kTileColumns && rows == kTileRows) {
#pragma GCC unroll 8
    for (int r = 0; r < kTileRows; ++r) {
      if (out[r] == nullptr) continue;
#pragma GCC unroll 3
      for (int j = 0; j < kTileVectors; ++j) {
        store(out[r] + j * L, first ? sums[r][j] : load(out[r] + j * L) + sums[r][j]);
      }
    }
    return;
  }
  float some[kTileRows][kTileColumns];
#pragma GCC unroll 8
  for (int r = 0; r < kTileRows; ++r) {
#pragma GCC unroll 3
    for (int j = 0; j < kTileVectors; ++j) store(some[r] + j * L, sums[r][j]);
  }
  for (int r = 0; r < rows; ++r) {
    if (out[r] == nullptr) continue;
    for (std::int64_t j = 0; j < columns; ++j) out[r][j] = first ? some[r][j] : out[r][j] + some[r][j];
  }
}

}  // namespace
}  // namespace SENTCORE_ISA
}  // namespace sentcore
