// The tiles of the sm_90a forward in shared memory, and its softmax in registers.
#pragma once

#include "common/sm90a/machine.h"
#include "common/sm90a/ptx.cuh"
#include "common/sm90a/ring.cuh"
#include "ops/varlen_attention/sentence.cuh"

namespace sentcore {
namespace attention {

constexpr int kGroups = 2;  // warpgroups that compute, 64 queries each
constexpr int kQueryRows = 64 * kGroups;
constexpr int kTileKeys = 128;

// Boxes of [64 rows, 64 columns]. Queries: [group][columns / 64]. Keys, an operand's rows of which lie one below the
// other: [columns / 64][rows / 64]. Values, of which the columns do: [rows / 64][columns / 64].
template <int kD>
struct Sm90aTiles {
  static constexpr int wide = kD / 64;
  static constexpr int query_bytes = kGroups * wide * kBox;
  static constexpr int tile_bytes = 2 * wide * kBox;
  static constexpr int query_stages = 2;
  static constexpr int stages = kD == 64 ? 4 : 2;  // of keys, and of values
  static constexpr int keys = query_stages * query_bytes;
  static constexpr int values = keys + stages * tile_bytes;
  static constexpr std::size_t bytes = values + stages * tile_bytes + 1024;  // whose beginning is aligned to 1024
  static_assert(bytes + 1024 <= kSm90aSharedBytes, "");
};

struct Sm90aMaps {
  TensorMap q;  // [Tq, N * D]
  TensorMap k;  // [Tk, N * D]
  TensorMap v;  // [Tk, N * D]
};

// A piece of work: 128 queries of a head of a sentence. Those of a sentence and head follow each other, so that their
// keys are found in L2.
struct Sm90aWork {
  Sentence sentence;
  int head, row;  // the first query's
  int tiles;      // of keys
  bool exists;

  __device__ __forceinline__ Sm90aWork(const VarlenAttention& given, std::int64_t number, int row_tiles, int keys_from)
      : sentence(given, number / row_tiles / given.heads),
        head(static_cast<int>(number / row_tiles % given.heads)),
        row(static_cast<int>(number % row_tiles) * kQueryRows),
        tiles((sentence.length_k + kTileKeys - 1) / kTileKeys),
        exists(row < sentence.length_q && sentence.length_k >= keys_from) {}
};

// The 64 scores a thread has of 128 keys: of two rows, 8 n + column and the one after it for each n.
using Scores = float[kTileKeys / 2];

// Scores times scale, in powers of two -> exp2(score - the row's highest so far), and how much smaller everything
// before gets by it. Columns from `end` on are not seen.
__device__ __forceinline__ void soften(Scores& scores, float scale, int end, int column, float (&maximum)[2],
                                       float (&sum)[2], float (&shrink)[2]) {
  if (end < kTileKeys) {
#pragma unroll
    for (int i = 0; i < kTileKeys / 2; ++i) {
      if (i / 4 * 8 + column + i % 2 >= end) scores[i] = -kInfinity;
    }
  }
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float highest = -kInfinity;
#pragma unroll
    for (int n = 0; n < kTileKeys / 8; ++n) {
      highest = fmaxf(highest, fmaxf(scores[4 * n + 2 * half], scores[4 * n + 2 * half + 1]));
    }
    highest = fmaxf(highest, __shfl_xor_sync(kFullMask, highest, 1));
    highest = fmaxf(highest, __shfl_xor_sync(kFullMask, highest, 2));
    highest = fmaxf(maximum[half], highest * scale);  // scale is positive
    // Nothing seen so far: any finite value makes every exponential 0.
    const float finite = highest == -kInfinity ? 0.0f : highest;
    shrink[half] = ptx::exp2_approximate(maximum[half] - finite);
    maximum[half] = highest;
    float added = 0.0f;
#pragma unroll
    for (int n = 0; n < kTileKeys / 8; ++n) {
#pragma unroll
      for (int i = 2 * half; i < 2 * half + 2; ++i) {
        scores[4 * n + i] = ptx::exp2_approximate(fmaf(scores[4 * n + i], scale, -finite));
        added += scores[4 * n + i];
      }
    }
    sum[half] = sum[half] * shrink[half] + added;
  }
}

// Probabilities as the left operand of the product with the values: 16 keys a fragment.
template <typename T>
__device__ __forceinline__ void to_fragments(const Scores& scores, std::uint32_t (&fragments)[kTileKeys / 16][4]) {
#pragma unroll
  for (int k = 0; k < kTileKeys / 16; ++k) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      fragments[k][i] = ptx::pack_pair<T>(scores[8 * k + 2 * i], scores[8 * k + 2 * i + 1]);
    }
  }
}

// scores = queries * keys^T of a warpgroup's 64 queries.
template <typename T, int kD>
__device__ __forceinline__ void start_scores(Scores& scores, const unsigned char* queries, const unsigned char* keys) {
#pragma unroll
  for (int k = 0; k < kD / 16; ++k) {
    const std::uint64_t a = ptx::operand(queries + k / 4 * kBox + k % 4 * 32);
    const std::uint64_t b = ptx::operand(keys + k / 4 * 2 * kBox + k % 4 * 32);
    ptx::multiply_64<T, true, true, kTileKeys>(scores, a, b, k > 0);
  }
}

// out += probabilities * values.
template <typename T, int kD>
__device__ __forceinline__ void start_outputs(float (&out)[kD / 2], const std::uint32_t (&fragments)[kTileKeys / 16][4],
                                              const unsigned char* values, bool first) {
#pragma unroll
  for (int k = 0; k < kTileKeys / 16; ++k) {
    const std::uint64_t b = ptx::operand(values + k / 4 * (kD / 64) * kBox + k % 4 * 16 * kBoxBytes, kBox);
    ptx::multiply_64<T, false, kD>(out, fragments[k], b, !(first && k == 0));
  }
}

}  // namespace attention
}  // namespace sentcore
