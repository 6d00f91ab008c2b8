// A warpgroup's tile of sums, 128 rows by kColumns columns in registers, on its way to memory: bias, what the backward
// needs, rotation, activation, 64 columns at a time through shared memory to the copy engine.
#pragma once

#include "common/dtypes.cuh"
#include "common/gemm/epilogue.cuh"
#include "common/reduce.cuh"
#include "common/sm90a/machine.h"
#include "common/sm90a/ptx.cuh"

namespace sentcore::gemm {

constexpr int kSm90aRows = 128;
constexpr int kStagedBytes = 2 * kBox;  // 128 rows of 64 columns
constexpr int kChunk = 64;              // columns
using Chunk = float[2][kChunk / 8][4];  // [64 rows][8 columns][as multiply_64 gives them]

// Where this thread's sums lie: rows `row` and row + 8 of each 64, columns 8 n + column and the one after it.
struct Seat {
  int warp;    // of the warpgroup
  int row;     // of 64
  int column;  // of 8
  __device__ __forceinline__ explicit Seat(int thread)
      : warp(thread / kWarpSize), row(warp * 16 + thread % kWarpSize / 4), column(thread % 4 * 2) {}
};

// Two boxes of shared memory that a warpgroup fills in turn, and the thread of it that starts their copies.
class Stager {
 public:
  // boxes: the shared address of 2 * kStagedBytes.
  __device__ __forceinline__ Stager(std::uint32_t boxes, int barrier, int thread)
      : next_(boxes), both_(2 * boxes + kStagedBytes), barrier_(barrier), starts_(thread == 0) {
    const Seat seat(thread);
    // The units of 16 bytes of row r are at unit ^ (r % 8); a box begins at a multiple of 1024, so that adding the
    // row's place first and then exclusive-or with the unit gives the address.
    place_ = static_cast<std::uint32_t>(seat.row * kBoxBytes + seat.row % 8 * 16 + seat.column * 2);
  }

  // values, changed and rounded to T, to rows row0 ... and columns column0 ... of what `map` shows. change(n, pair) is
  // called for each pair of neighbours in columns 8 n to 8 n + 7 just before it is written: the results of all at a
  // time would not fit into the registers.
  template <typename T, typename Change>
  __device__ __forceinline__ void store(const TensorMap* map, const Chunk& values, int row0, int column0,
                                        const Change& change) {
    if (starts_) ptx::store_wait_read<1>();
    ptx::named_barrier(barrier_, kWarpgroup);  // the copies that read these boxes are done
    const std::uint32_t place = next_ + place_;
#pragma unroll
    for (int n = 0; n < kChunk / 8; ++n) {
      const std::uint32_t unit = place ^ static_cast<std::uint32_t>(n * 16);
#pragma unroll
      for (int m = 0; m < 2; ++m) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          float2 pair = make_float2(values[m][n][2 * half], values[m][n][2 * half + 1]);
          change(m, half, n, pair);
          ptx::store_shared(unit + m * kBox + half * 8 * kBoxBytes, ptx::pack_pair<T>(pair.x, pair.y));
        }
      }
    }
    ptx::fence_for_copies();
    ptx::named_barrier(barrier_, kWarpgroup);  // the boxes are full
    if (starts_) {
      ptx::store_box(map, next_, row0, column0);
      ptx::store_box(map, next_ + kBox, row0 + kBoxRows, column0);
      ptx::store_commit();
    }
    next_ = both_ - next_;
  }

  // Before the block ends: nothing reads its shared memory any more.
  __device__ __forceinline__ void finish() {
    if (starts_) ptx::store_wait_read<0>();
  }

 private:
  std::uint32_t next_, both_;  // the boxes to be filled next, and the sum of both addresses
  std::uint32_t place_;
  int barrier_;
  bool starts_;
};

// What a tile's columns add, and with e4m3 multiply by, in shared memory.
template <int kColumns, bool kScaled>
struct ColumnTerms {
  float bias[kColumns];
  float scale[kScaled ? kColumns : 1];
};

// Puts them there; all threads of the warpgroup.
template <typename T, bool kGated, int kColumns, bool kScaled>
__device__ __forceinline__ void fetch_terms(const Gemm& args, int thread, int column0,
                                            ColumnTerms<kColumns, kScaled>& terms) {
  for (int c = thread; c < kColumns; c += kWarpgroup) {
    const std::int64_t column = kGated && c >= kChunk ? args.columns / 2 + column0 + c - kChunk : column0 + c;
    const bool inside = column < args.columns, has_bias = inside && args.epilogue.bias[0] != nullptr;
    if constexpr (kScaled) {
      terms.bias[c] = has_bias ? static_cast<const float*>(args.epilogue.bias[0])[column] : 0.0f;
      terms.scale[c] = inside ? args.epilogue.column_scale[column] : 0.0f;
    } else {
      terms.bias[c] = has_bias ? bias_of<T>(args.epilogue, column) : 0.0f;
    }
  }
}

// Gives pairs of a chunk's sums their bias, and before with e4m3 their scales.
template <bool kScaled>
struct AddTerms {
  const float2* bias;  // this thread's pair of the first 8 columns
  const float2* scale;
  float rows[2][2];  // scales of this thread's rows 64 m + 8 half

  // columns: those of the chunk, from the tile's `first` on.
  template <int kColumns>
  __device__ __forceinline__ AddTerms(const Gemm& args, const ColumnTerms<kColumns, kScaled>& terms, int first,
                                      int row0, int thread)
      : bias(reinterpret_cast<const float2*>(terms.bias + first) + thread % 4),
        scale(reinterpret_cast<const float2*>(terms.scale + (kScaled ? first : 0)) + thread % 4) {
    if constexpr (kScaled) {
      const int row = row0 + Seat(thread).row;
#pragma unroll
      for (int m = 0; m < 2; ++m) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int mine = row + 64 * m + 8 * half;
          rows[m][half] = mine < args.rows ? args.epilogue.row_scale[mine] : 0.0f;
        }
      }
    }
  }
  __device__ __forceinline__ void operator()(int m, int half, int n, float2& pair) const {
    if constexpr (kScaled) {
      const float2 by = scale[n * 4];
      pair = make_float2(pair.x * rows[m][half] * by.x, pair.y * rows[m][half] * by.y);
    }
    const float2 added = bias[n * 4];
    pair = make_float2(pair.x + added.x, pair.y + added.y);
  }
};

struct Unchanged {
  __device__ __forceinline__ void operator()(int, int, int, float2&) const {}
};

// Turns a chunk of whole heads of 8 * kUnits columns, half-split (GPT-NeoX): both halves of a pair are this thread's.
template <typename T, int kUnits>
__device__ __forceinline__ void rotate_heads(const Gemm& args, const Seat& seat, int row0, Chunk& values) {
  const Epilogue& epilogue = args.epilogue;
#pragma unroll
  for (int m = 0; m < 2; ++m) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const std::int64_t row = row0 + m * 64 + seat.row + 8 * half;
      if (row >= args.rows) continue;
#pragma unroll
      for (int n = 0; n < kChunk / 8; ++n) {
        if (n % kUnits >= kUnits / 2) continue;
#pragma unroll
        for (int which = 0; which < 2; ++which) {
          const std::int64_t at = row * (kUnits * 4) + n % kUnits * 8 + seat.column + which;
          const float cosine = angle<T>(epilogue.cos, epilogue.rotary_is_float32, at);
          const float sine = angle<T>(epilogue.sin, epilogue.rotary_is_float32, at);
          float& first = values[m][n][2 * half + which];
          float& second = values[m][n + kUnits / 2][2 * half + which];
          const float turned = first * cosine - second * sine;
          second = second * cosine + first * sine;
          first = turned;
        }
      }
    }
  }
}

// Bias, then rotation.
template <typename T>
__device__ __forceinline__ void rotate(const Gemm& args, const Seat& seat, int row0, int column0,
                                       const AddTerms<false>& add, Chunk& values) {
#pragma unroll
  for (int n = 0; n < kChunk / 8; ++n) {
#pragma unroll
    for (int m = 0; m < 2; ++m) {
#pragma unroll
      for (int i = 0; i < 4; i += 2) {
        float2 pair = make_float2(values[m][n][i], values[m][n][i + 1]);
        add(m, i / 2, n, pair);
        values[m][n][i] = pair.x;
        values[m][n][i + 1] = pair.y;
      }
    }
  }
  if (column0 >= args.epilogue.rotary_columns) return;
  if (args.epilogue.head_size == 64) rotate_heads<T, 8>(args, seat, row0, values);
  if (args.epilogue.head_size == 32) rotate_heads<T, 4>(args, seat, row0, values);
  if (args.epilogue.head_size == 16) rotate_heads<T, 2>(args, seat, row0, values);
}

// A chunk of a slice of K: to float32 memory as it is, a quarter of a warp to 32 bytes.
__device__ __forceinline__ void store_slice(const Gemm& args, const Seat& seat, int slice, int row0, int column0,
                                            const Chunk& values) {
#pragma unroll
  for (int m = 0; m < 2; ++m) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const std::int64_t row = row0 + m * 64 + seat.row + 8 * half;
      if (row >= args.rows) continue;
      float* target = args.partial + (slice * args.rows + row) * args.columns + column0 + seat.column;
#pragma unroll
      for (int n = 0; n < kChunk / 8; ++n) {  // N is a multiple of 8
        if (column0 + n * 8 >= args.columns) continue;
        *reinterpret_cast<float2*>(target + n * 8) = make_float2(values[m][n][2 * half], values[m][n][2 * half + 1]);
      }
    }
  }
}

}  // namespace sentcore::gemm
