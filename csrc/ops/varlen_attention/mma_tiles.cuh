// Tiles of 16-bit elements in shared memory and their products on tensor cores.
//
// A warp owns 16 rows. It holds scores of 16 rows by 8 * n columns as the instruction leaves them: sums[n][i] of lane l
// is row l / 4 + i / 2 * 8, column 8 * n + l % 4 * 2 + i % 2. Products with a dimension of 16 * kChunks columns take
// the number of chunks that hold anything, so that a short sentence is not padded to the tile.
#pragma once

#include <cstdint>

#include "common/dtypes.cuh"
#include "common/reduce.cuh"

namespace sentcore {
namespace attention {

constexpr int kWarps = 4;  // of a block
constexpr int kRowsPerWarp = 16;

// Elements from row to row of a tile: an odd number of 16-byte units, so that the eight rows of a matrix load lie in
// different banks.
template <int kD>
constexpr int kPitch = kD + 8;

// How a block of kWarps warps is split, and the grid, from the fastest index on: groups of heads, tiles of
// 16 << warps_shift rows, sentences. So blocks that run at a time read whole rows of memory between them.
struct BlockShape {
  int warps_shift;   // 1 << warps_shift warps a head: 1, 2 or 4
  int head_groups;   // of kWarps >> warps_shift heads
  int tiles;         // of the longest sentence
  int rows;          // of a streamed tile in shared memory, a multiple of 16
  int shared_bytes;  // of the block
};

// Where a warp stands: its head, the sentence, the 16 rows.
struct WarpPlace {
  std::int64_t sentence;
  int block_row;  // first row of the block
  int block_end;
  int row;     // the warp's own 16, counted from block_row
  int head;    // may lie beyond the last one
  int slot;    // of the head in the block
  int thread;  // among the `threads` that share the head
  int threads;

  __device__ __forceinline__ explicit WarpPlace(const BlockShape& shape) {
    const int warp = static_cast<int>(threadIdx.x) / kWarpSize;
    const int rows = kRowsPerWarp << shape.warps_shift;
    const unsigned groups = static_cast<unsigned>(shape.head_groups), tiles = static_cast<unsigned>(shape.tiles);
    const unsigned tile = blockIdx.x / groups;  // counted through all sentences
    sentence = tile / tiles;
    block_row = static_cast<int>(tile % tiles) * rows;
    block_end = block_row + rows;
    slot = warp >> shape.warps_shift;
    row = (warp - (slot << shape.warps_shift)) * kRowsPerWarp;
    head = (static_cast<int>(blockIdx.x % groups) * kWarps >> shape.warps_shift) + slot;
    threads = kWarpSize << shape.warps_shift;
    thread = static_cast<int>(threadIdx.x) & (threads - 1);
  }
};

__device__ __forceinline__ int lane_of_thread() { return static_cast<int>(threadIdx.x) % kWarpSize; }
// Row (for i / 2) and column (for i % 2) of element i of a fragment.
__device__ __forceinline__ int fragment_row(int i) { return lane_of_thread() / 4 + i / 2 * 8; }
__device__ __forceinline__ int fragment_column(int n, int i) { return 8 * n + lane_of_thread() % 4 * 2 + i % 2; }

// Starts copying `rows` rows of `size` elements into a tile of kD columns, and zeros behind them up to row `padded` and
// column kD. Done by `threads` threads, this one being number `thread`.
template <int kD, typename T>
__device__ __forceinline__ void copy_rows(T* tile, const T* source, std::int64_t stride, int rows, int padded, int size,
                                          int thread, int threads) {
  constexpr int kPacks = kD / 8;
  const auto copy = [&](T* to, const T* from, int row, int column) {
    const bool outside = row >= rows || column >= size;
    ptx::copy_async_16(to, from, outside);
  };
  if constexpr (kWarpSize % kPacks == 0) {  // a thread keeps its column, and steps down the rows
    const int column = thread % kPacks * 8, step = threads / kPacks, first = thread / kPacks;
    T* to = tile + first * kPitch<kD> + column;
    const T* from = source + first * stride + column;
    const std::int64_t from_step = step * stride;
    for (int row = first; row < padded; row += step, to += step * kPitch<kD>, from += from_step) {
      copy(to, from, row, column);
    }
  } else {
    for (int i = thread; i < padded * kPacks; i += threads) {
      const int row = i / kPacks, column = i % kPacks * 8;
      copy(tile + row * kPitch<kD> + column, source + row * stride + column, row, column);
    }
  }
}

// Eight elements of shared memory, aligned to 16 bytes, as floats.
template <typename T>
__device__ __forceinline__ void read_pack(const T* shared, float (&values)[8]) {
  Elements<T, 8> elements;
  elements.pack[0] = *reinterpret_cast<const uint4*>(shared);
  convert(elements, values);
}

// The left operand's fragment for columns k .. k + 15 of 16 rows of a tile.
template <int kD, typename T>
__device__ __forceinline__ void load_left(std::uint32_t (&a)[4], const T* rows, int k) {
  const int lane = lane_of_thread();
  ptx::load_matrix_x4(a, rows + lane % 16 * kPitch<kD> + k + lane / 16 * 8);
}

// sums = L * R^T: L is 16 rows of kD, whose fragment for columns k .. left(k, a) gives; R the first 16 * chunks rows of
// a tile. Sums of the other chunks are 0.
template <int kD, int kChunks, typename T, typename Left>
__device__ __forceinline__ void multiply_rows(float (&sums)[2 * kChunks][4], const Left& left, const T* right,
                                              int chunks) {
  const int lane = lane_of_thread();
  const T* mine = right + (lane / 16 * 8 + lane % 8) * kPitch<kD> + lane / 8 % 2 * 8;
#pragma unroll
  for (int n = 0; n < 2 * kChunks; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) sums[n][i] = 0.0f;
  }
#pragma unroll
  for (int k = 0; k < kD; k += 16) {
    std::uint32_t a[4];
    left(k, a);
#pragma unroll
    for (int c = 0; c < kChunks; ++c) {
      if (c < chunks) {
        std::uint32_t loaded[4];
        ptx::load_matrix_x4(loaded, mine + c * 16 * kPitch<kD> + k);
        const std::uint32_t b0[2] = {loaded[0], loaded[1]}, b1[2] = {loaded[2], loaded[3]};
        ptx::multiply_accumulate_16x8x16<T>(sums[2 * c], a, b0);
        ptx::multiply_accumulate_16x8x16<T>(sums[2 * c + 1], a, b1);
      }
    }
  }
}

// sums += L * R: L is 16 rows of 16 * chunks columns as the scores lie in registers, rounded to T; R as many rows of a
// tile of kD columns.
template <int kD, int kChunks, typename T>
__device__ __forceinline__ void multiply_columns(float (&sums)[kD / 8][4], const float (&left)[2 * kChunks][4],
                                                 const T* right, int chunks) {
  const int lane = lane_of_thread();
  const T* mine = right + lane % 16 * kPitch<kD> + lane / 16 * 8;
#pragma unroll
  for (int c = 0; c < kChunks; ++c) {
    if (c < chunks) {
      std::uint32_t a[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        a[i] = ptx::pack_pair<T>(left[2 * c + i / 2][i % 2 * 2], left[2 * c + i / 2][i % 2 * 2 + 1]);
      }
#pragma unroll
      for (int d = 0; d < kD / 16; ++d) {
        std::uint32_t loaded[4];
        ptx::load_matrix_x4_transposed(loaded, mine + c * 16 * kPitch<kD> + d * 16);
        const std::uint32_t b0[2] = {loaded[0], loaded[1]}, b1[2] = {loaded[2], loaded[3]};
        ptx::multiply_accumulate_16x8x16<T>(sums[2 * d], a, b0);
        ptx::multiply_accumulate_16x8x16<T>(sums[2 * d + 1], a, b1);
      }
    }
  }
}

// Writes the first `rows` of a warp's 16 rows of `size` columns, times factor[0] above row 8 and factor[1] from there
// on, by way of a tile that the warp has for itself.
template <int kD, typename T>
__device__ __forceinline__ void store_rows(T* target, std::int64_t stride, const float (&sums)[kD / 8][4],
                                           const float (&factor)[2], T* tile, int rows, int size) {
  __syncwarp();  // every lane has read what was in the tile
#pragma unroll
  for (int n = 0; n < kD / 8; ++n) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      *reinterpret_cast<std::uint32_t*>(tile + fragment_row(2 * half) * kPitch<kD> + fragment_column(n, 0)) =
          ptx::pack_pair<T>(sums[n][2 * half] * factor[half], sums[n][2 * half + 1] * factor[half]);
    }
  }
  __syncwarp();  // the rows are complete
  constexpr int kPacks = kD / 8;
  const auto store = [&](T* to, const T* from, int row, int column) {
    if (row < rows && column < size)
      ptx::store_global(reinterpret_cast<uint4*>(to), *reinterpret_cast<const uint4*>(from));
  };
  if constexpr (kWarpSize % kPacks == 0) {  // as in copy_rows
    constexpr int kStep = kWarpSize / kPacks;
    const int first = lane_of_thread() / kPacks, column = lane_of_thread() % kPacks * 8;
    T* const to = target + first * stride + column;
    const T* const from = tile + first * kPitch<kD> + column;
#pragma unroll
    for (int row = 0; row < kRowsPerWarp; row += kStep) {
      store(to + row * stride, from + row * kPitch<kD>, first + row, column);
    }
  } else {
    for (int i = lane_of_thread(); i < kRowsPerWarp * kPacks; i += kWarpSize) {
      const int row = i / kPacks, column = i % kPacks * 8;
      store(target + row * stride + column, tile + row * kPitch<kD> + column, row, column);
    }
  }
}

// The sum, and the largest, over the four lanes that hold a row.
__device__ __forceinline__ float row_sum(float value) {
  value += __shfl_xor_sync(kFullMask, value, 1);
  return value + __shfl_xor_sync(kFullMask, value, 2);
}
__device__ __forceinline__ float row_max(float value) {
  value = fmaxf(value, __shfl_xor_sync(kFullMask, value, 1));
  return fmaxf(value, __shfl_xor_sync(kFullMask, value, 2));
}

}  // namespace attention
}  // namespace sentcore
