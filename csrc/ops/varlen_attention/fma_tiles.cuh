// Tiles of floats in shared memory and their products with plain multiply-adds.
//
// A block has 16 x 16 threads. Of scores of 16 * kR by 16 * kR, thread (y, x) holds the rows y * kR + i and the columns
// x + 16 * j; so a warp has 2 * kR rows for itself. Of sums over kD columns it holds the same rows and the columns
// column_of<kD>(c). Products with a dimension of 16 * kR columns take the number of chunks of 16 that hold anything.
#pragma once

#include <cstdint>

#include "common/dtypes.cuh"
#include "common/reduce.cuh"

namespace sentcore {
namespace attention {

constexpr int kSide = 16;
constexpr int kThreads = kSide * kSide;

// Floats from row to row of a tile: one 16-byte unit more than the row, so that rows that are read at a time lie in
// different banks.
template <int kColumns>
constexpr int kFloatPitch = kColumns + 4;

__device__ __forceinline__ int thread_x() { return static_cast<int>(threadIdx.x) % kSide; }
__device__ __forceinline__ int thread_y() { return static_cast<int>(threadIdx.x) / kSide; }
// First row of the thread's warp in the block.
template <int kR>
__device__ __forceinline__ int warp_row() {
  return static_cast<int>(threadIdx.x) / kWarpSize * 2 * kR;
}

// A thread's columns of kD are vectors of up to four floats, each beside its neighbours'.
template <int kD>
constexpr int kVector = kD / kSide < 4 ? kD / kSide : 4;
template <int kD>
__device__ __forceinline__ int column_of(int c) {
  return (c / kVector<kD> * kSide + thread_x()) * kVector<kD> + c % kVector<kD>;
}

// Four floats of shared memory, aligned to 16 bytes.
__device__ __forceinline__ void read_pack(const float* shared, float (&values)[4]) {
  const uint4 pack = *reinterpret_cast<const uint4*>(shared);
  values[0] = bits_as<float>(pack.x);
  values[1] = bits_as<float>(pack.y);
  values[2] = bits_as<float>(pack.z);
  values[3] = bits_as<float>(pack.w);
}

__device__ __forceinline__ void write_pack(float* shared, const float (&values)[4]) {
  *reinterpret_cast<uint4*>(shared) = {bits_as<std::uint32_t>(values[0]), bits_as<std::uint32_t>(values[1]),
                                       bits_as<std::uint32_t>(values[2]), bits_as<std::uint32_t>(values[3])};
}

// The first `rows` rows of `size` elements as floats in a tile of kRows by kD, with zeros behind them. The block's
// barrier is left to the caller.
template <int kRows, int kD, typename T>
__device__ __forceinline__ void load_rows(float* tile, const T* source, std::int64_t stride, int rows, int size) {
  constexpr int kPacks = kD / 4;
  // A row of whole packs keeps every row aligned, as the tensor is.
  const bool packs = sizeof(T) == 4 && size % 4 == 0;
  for (int i = static_cast<int>(threadIdx.x); i < kRows * kPacks; i += kThreads) {
    const int row = i / kPacks, column = i % kPacks * 4;
    float values[4] = {};
    if (row < rows && column < size) {
      const T* from = source + row * stride + column;
      if (packs) {
        load_as_float<Access::reused>(reinterpret_cast<const float*>(from), values);
      } else {
#pragma unroll
        for (int c = 0; c < 4; ++c) {
          if (column + c < size) values[c] = to_float(from[c]);
        }
      }
    }
    write_pack(tile + row * kFloatPitch<kD> + column, values);
  }
}

// sums = L * R^T of two tiles of kD columns. Columns of the other chunks are 0.
template <int kR, int kD>
__device__ __forceinline__ void multiply_rows(float (&sums)[kR][kR], const float* left, const float* right,
                                              int chunks) {
  const float* rows = left + thread_y() * kR * kFloatPitch<kD>;
  const float* columns = right + thread_x() * kFloatPitch<kD>;
#pragma unroll
  for (int i = 0; i < kR; ++i) {
#pragma unroll
    for (int j = 0; j < kR; ++j) sums[i][j] = 0.0f;
  }
#pragma unroll 2
  for (int k = 0; k < kD; k += 4) {
    float a[kR][4];
#pragma unroll
    for (int i = 0; i < kR; ++i) read_pack(rows + i * kFloatPitch<kD> + k, a[i]);
#pragma unroll
    for (int j = 0; j < kR; ++j) {
      if (j >= chunks) continue;
      float b[4];
      read_pack(columns + j * kSide * kFloatPitch<kD> + k, b);
#pragma unroll
      for (int i = 0; i < kR; ++i) {
#pragma unroll
        for (int c = 0; c < 4; ++c) sums[i][j] += a[i][c] * b[c];
      }
    }
  }
}

// Puts this thread's scores into a tile of 16 * kR columns.
template <int kR>
__device__ __forceinline__ void write_scores(float* tile, const float (&scores)[kR][kR]) {
#pragma unroll
  for (int i = 0; i < kR; ++i) {
#pragma unroll
    for (int j = 0; j < kR; ++j) {
      tile[(thread_y() * kR + i) * kFloatPitch<kSide * kR> + thread_x() + j * kSide] = scores[i][j];
    }
  }
}

// sums += L * R: L is a tile of scores, of which 16 * chunks columns count; R one of kD columns.
template <int kR, int kD>
__device__ __forceinline__ void multiply_columns(float (&sums)[kR][kD / kSide], const float* left, const float* right,
                                                 int chunks) {
  const float* rows = left + thread_y() * kR * kFloatPitch<kSide * kR>;
#pragma unroll 1
  for (int k = 0; k < kSide * chunks; k += 4) {
    float a[kR][4];
#pragma unroll
    for (int i = 0; i < kR; ++i) read_pack(rows + i * kFloatPitch<kSide * kR> + k, a[i]);
#pragma unroll
    for (int step = 0; step < 4; ++step) {
      const float* row = right + (k + step) * kFloatPitch<kD>;
#pragma unroll
      for (int c = 0; c < kD / kSide; c += kVector<kD>) {
        float b[4];
        if constexpr (kVector<kD> == 4) {
          read_pack(row + column_of<kD>(c), b);
        } else {
#pragma unroll
          for (int v = 0; v < kVector<kD>; ++v) b[v] = row[column_of<kD>(c) + v];
        }
#pragma unroll
        for (int i = 0; i < kR; ++i) {
#pragma unroll
          for (int v = 0; v < kVector<kD>; ++v) sums[i][c + v] += a[i][step] * b[v];
        }
      }
    }
  }
}

// Writes row y * kR + i of sums, of `size` columns, times factor.
template <int kD, typename T>
__device__ __forceinline__ void store_row(T* row, const float (&sums)[kD / kSide], float factor, int size) {
#pragma unroll
  for (int c = 0; c < kD / kSide; ++c) {
    const int column = column_of<kD>(c);
    if (column < size) row[column] = from_float<T>(sums[c] * factor);
  }
}

// The sum, and the largest, over the 16 threads that hold a row.
__device__ __forceinline__ float side_sum(float value) {
#pragma unroll
  for (int distance = 1; distance < kSide; distance *= 2) value += __shfl_xor_sync(kFullMask, value, distance);
  return value;
}
__device__ __forceinline__ float side_max(float value) {
#pragma unroll
  for (int distance = 1; distance < kSide; distance *= 2) {
    value = fmaxf(value, __shfl_xor_sync(kFullMask, value, distance));
  }
  return value;
}

}  // namespace attention
}  // namespace sentcore
