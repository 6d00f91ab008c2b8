// A warpgroup's tile of sums, 128 rows by kColumns columns in registers, on its way to memory: bias, what the backward
// needs, rotation, activation, 64 columns at a time through shared memory to the copy engine.
#pragma once

#include "common/dtypes.cuh"
#include "common/gemm/epilogue.cuh"
#include "common/hopper/ptx.cuh"
#include "common/reduce.cuh"

namespace sentcore::gemm {

constexpr int kHopperRows = 128;
constexpr int kWarpgroup = 128;                   // threads
constexpr int kHopperBox = kBoxRows * kBoxBytes;  // bytes
constexpr int kStagedBytes = 2 * kHopperBox;      // 128 rows of 64 columns
constexpr int kChunk = 64;                        // columns
using Chunk = float[2][kChunk / 8][4];            // [64 rows][8 columns][as multiply_64 gives them]

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
          change(n, pair);
          ptx::store_shared(unit + m * kHopperBox + half * 8 * kBoxBytes, ptx::pack_pair<T>(pair.x, pair.y));
        }
      }
    }
    ptx::fence_for_copies();
    ptx::named_barrier(barrier_, kWarpgroup);  // the boxes are full
    if (starts_) {
      ptx::store_box(map, next_, row0, column0);
      ptx::store_box(map, next_ + kHopperBox, row0 + kBoxRows, column0);
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

// Puts the biases of a tile's columns where add_bias finds them; all threads of the warpgroup.
template <typename T, bool kGated>
__device__ __forceinline__ void fetch_bias(const Gemm& args, int thread, int column0, int columns, float* biases) {
  for (int c = thread; c < columns; c += kWarpgroup) {
    const std::int64_t column = kGated && c >= kChunk ? args.columns / 2 + column0 + c - kChunk : column0 + c;
    biases[c] = args.epilogue.bias[0] != nullptr && column < args.columns ? bias_of<T>(args.epilogue, column) : 0.0f;
  }
}

// Adds the biases of a chunk's columns to pairs of them.
struct AddBias {
  const float2* biases;  // this thread's pair of the first 8 columns
  __device__ __forceinline__ AddBias(const float* of_chunk, int thread)
      : biases(reinterpret_cast<const float2*>(of_chunk) + thread % 4) {}
  __device__ __forceinline__ void operator()(int n, float2& pair) const {
    const float2 bias = biases[n * 4];
    pair = make_float2(pair.x + bias.x, pair.y + bias.y);
  }
};

struct Unchanged {
  __device__ __forceinline__ void operator()(int, float2&) const {}
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
__device__ __forceinline__ void rotate(const Gemm& args, const Seat& seat, int row0, int column0, const AddBias& add,
                                       Chunk& values) {
#pragma unroll
  for (int n = 0; n < kChunk / 8; ++n) {
#pragma unroll
    for (int m = 0; m < 2; ++m) {
#pragma unroll
      for (int i = 0; i < 4; i += 2) {
        float2 pair = make_float2(values[m][n][i], values[m][n][i + 1]);
        add(n, pair);
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
