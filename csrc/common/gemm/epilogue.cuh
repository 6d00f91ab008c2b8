// From a tile of float32 sums in shared memory to global memory, row by row, so that neighbouring threads store
// neighbouring packs.
#pragma once

#include "common/dtypes.cuh"
#include "common/gemm/gemm.h"

namespace sentcore::gemm {

// Where a tile lies in the product, and which of its columns are which of N.
struct TilePlace {
  std::int64_t row0;     // of M
  std::int64_t column0;  // of N, or of N / 2 where gated
  int slice;             // of K
};

// Column of N that tile column c stands for. A gated tile holds its first half's columns, then those they are
// multiplied by.
__device__ __forceinline__ std::int64_t column_of(const Gemm& gemm, const TilePlace& tile, int c, int tile_columns,
                                                  bool gated) {
  if (!gated) return tile.column0 + c;
  const int half = tile_columns / 2;
  return c < half ? tile.column0 + c : gemm.columns / 2 + tile.column0 + c - half;
}

template <typename T>
__device__ __forceinline__ float bias_of(const Epilogue& epilogue, std::int64_t column) {
  const int part = (column >= epilogue.bias_part) + (column >= 2 * epilogue.bias_part);
  return to_float(static_cast<const T*>(epilogue.bias[part])[column - part * epilogue.bias_part]);
}

template <typename T>
__device__ __forceinline__ float angle(const void* table, bool is_float32, std::int64_t index) {
  return is_float32 ? static_cast<const float*>(table)[index] : to_float(static_cast<const T*>(table)[index]);
}

// Column c of a row after rotation: with its partner half a head away, as in the half-split (GPT-NeoX) layout.
template <typename T>
__device__ __forceinline__ float rotated(const Epilogue& epilogue, const float* row, int c, std::int64_t m) {
  const int half = epilogue.head_size / 2, place = c % epilogue.head_size;
  const bool first = place < half;
  const std::int64_t at = m * half + (first ? place : place - half);
  const float cosine = angle<T>(epilogue.cos, epilogue.rotary_is_float32, at);
  const float sine = angle<T>(epilogue.sin, epilogue.rotary_is_float32, at);
  const float partner = row[first ? c + half : c - half];
  return first ? row[c] * cosine - partner * sine : row[c] * cosine + partner * sine;
}

// Rows [0, kRows) of the tile, of which sums [kRows, pitch] holds the float32 sums; they are row0 + ... of M. All
// threads of the block call this between barriers. W: columns a thread takes at a time, 16 bytes of T or 1.
template <typename T, int kRows, int kColumns, int W>
__device__ __forceinline__ void store_rows(const Gemm& gemm, const TilePlace& tile, bool gated, float* sums, int pitch,
                                           int thread, int threads) {
  const Epilogue& epilogue = gemm.epilogue;
  const bool last = gemm.partial == nullptr;  // else a later kernel adds the slices
  const int width = gated ? kColumns / 2 : kColumns;
  if (last && epilogue.bias[0] != nullptr) {  // into shared memory first: a rotation looks at two columns
    for (int i = thread; i < kRows * kColumns; i += threads) {
      const int r = i / kColumns, c = i % kColumns;
      const std::int64_t column = column_of(gemm, tile, c, kColumns, gated);
      const bool inside = gated ? tile.column0 + c % (kColumns / 2) < gemm.columns / 2 : column < gemm.columns;
      if (inside) sums[r * pitch + c] += bias_of<T>(epilogue, column);
    }
    __syncthreads();  // the biases are added
  }
  if (last && epilogue.pre != nullptr) {
    for (int i = thread; i < kRows * kColumns / W; i += threads) {
      const int r = i * W / kColumns, c = i * W % kColumns;
      const std::int64_t m = tile.row0 + r, column = column_of(gemm, tile, c, kColumns, gated);
      const bool inside = gated ? tile.column0 + c % (kColumns / 2) < gemm.columns / 2 : column < gemm.columns;
      if (m >= gemm.rows || !inside) continue;
      float values[W];
#pragma unroll
      for (int j = 0; j < W; ++j) values[j] = sums[r * pitch + c + j];
      store_from_float<Access::streamed>(static_cast<T*>(epilogue.pre) + m * gemm.columns + column, values);
    }
  }
  const std::int64_t columns = gated ? gemm.columns / 2 : gemm.columns;
  for (int i = thread; i < kRows * width / W; i += threads) {
    const int r = i * W / width, c = i * W % width;
    const std::int64_t m = tile.row0 + r, column = tile.column0 + c;
    if (m >= gemm.rows || column >= columns) continue;
    const float* row = sums + r * pitch;
    float values[W];
#pragma unroll
    for (int j = 0; j < W; ++j) values[j] = row[c + j];
    if (!last) {
      float* slice = gemm.partial + (tile.slice * gemm.rows + m) * gemm.columns + column;
#pragma unroll
      for (int j = 0; j < W; ++j) slice[j] = values[j];
      continue;
    }
    if (epilogue.cos != nullptr && column < epilogue.rotary_columns) {
#pragma unroll
      for (int j = 0; j < W; ++j) values[j] = rotated<T>(epilogue, row, c + j, m);
    }
    if (gated) {
#pragma unroll
      for (int j = 0; j < W; ++j) {
        values[j] = activate(epilogue.activation, row[c + j]) * row[width + c + j];
      }
    } else if (epilogue.activation != Activation::none) {
#pragma unroll
      for (int j = 0; j < W; ++j) values[j] = activate(epilogue.activation, values[j]);
    }
    store_from_float<Access::reused>(static_cast<T*>(gemm.out) + m * columns + column, values);
  }
}

}  // namespace sentcore::gemm
