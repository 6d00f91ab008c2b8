// What is done to scores as the tensor cores leave them: scale, terms, mask, dropout.
#pragma once

#include <cstdint>

#include "ops/varlen_attention/mma_tiles.cuh"
#include "ops/varlen_attention/sentence.cuh"

namespace sentcore {
namespace attention {

// Products of queries and keys -> scores in powers of two, -infinity where the query does not see the key. Rows are
// queries, from first_row on; columns are keys, from first_column on.
template <bool kOptions, int kTiles, typename T>
__device__ __forceinline__ void finish_scores(const Terms<T>& terms, int first_row, int first_column,
                                              float (&scores)[kTiles][4]) {
  const float scale = terms.args.scale * kLog2E;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = first_row + fragment_row(2 * half);
    const Range mine = kOptions ? terms.sentence.columns_of(row) : Range{0, terms.sentence.length_k};
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
#pragma unroll
      for (int i = 2 * half; i < 2 * half + 2; ++i) {
        const int column = first_column + fragment_column(n, i);
        // Rounded before the maximum is taken away, in every kernel: a compiler that sees the mask decided would fuse
        // both.
        float score = __fmul_rn(scores[n][i], scale);
        if (kOptions && terms.any) score += terms.at(row, column) * kLog2E;
        scores[n][i] = column < mine.begin || column >= mine.end ? -kInfinity : score;
      }
    }
  }
}

// The end of a forward's rows, 16 from first_row on: the factors of the outputs of this lane's two, and lse [T, N]
// where that is kept. maximum: in powers of two; sum: this lane's part of the row's.
__device__ __forceinline__ void finish_rows(const VarlenAttentionForward& args, const Sentence& sentence, int head,
                                            int first_row, const float (&maximum)[2], const float (&sum)[2],
                                            float (&factor)[2]) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const float total = row_sum(sum[half]);
    factor[half] = total == 0.0f ? 0.0f : args.given.keep_scale / total;
    const int row = first_row + fragment_row(2 * half);
    if (args.lse != nullptr && lane_of_thread() % 4 == 0 && row < sentence.length_q) {
      args.lse[(static_cast<std::int64_t>(sentence.first_q) + row) * args.given.heads + head] =
          total == 0.0f ? -kInfinity : fmaf(maximum[half], kLn2, logf(total));
    }
  }
}

// Keeps of the values what dropout keeps of the probabilities at their place, in the chunks that hold anything.
//
// Two neighbouring lanes hold four columns between them: one draw. Each of them draws for one of two tiles.
template <int kTiles>
__device__ __forceinline__ void drop(const VarlenAttention& args, const Sentence& sentence, int head, int first_row,
                                     int first_column, int chunks, float (&values)[kTiles][4]) {
  const AttentionDropout dropout(args);
  const int lane = lane_of_thread(), odd = lane % 2;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const std::int64_t token = static_cast<std::int64_t>(sentence.first_q) + first_row + fragment_row(2 * half);
#pragma unroll
    for (int n = 0; n < kTiles; n += 2) {
      if (n / 2 >= chunks) continue;
      const unsigned own = dropout.keeps<4>(token, head, first_column + 8 * (n + odd) + lane % 4 / 2 * 4);
      const unsigned other = __shfl_xor_sync(kFullMask, own, 1);
      const unsigned kept[2] = {(odd ? other : own) >> (2 * odd), (odd ? own : other) >> (2 * odd)};
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if ((kept[i / 2] >> i % 2 & 1u) == 0) values[n + i / 2][2 * half + i % 2] = 0.0f;
      }
    }
  }
}

// The same for turned scores, as one bit an element, 4 * n + i.
//
// The four lanes that hold four keys beside each other share a draw for each of their elements. Lane j of them draws
// for the elements i == j.
template <int kTiles>
__device__ __forceinline__ std::uint32_t kept_turned(const VarlenAttention& args, const Sentence& sentence, int head,
                                                     int first_key, int first_query, int chunks) {
  const AttentionDropout dropout(args);
  const int lane = lane_of_thread(), j = lane / 4 % 4;
  std::uint32_t drawn = 0;
#pragma unroll
  for (int n = 0; n < kTiles; ++n) {
    if (n / 2 >= chunks) continue;
    const std::int64_t token = static_cast<std::int64_t>(sentence.first_q) + first_query + fragment_column(n, j);
    drawn |= dropout.keeps<4>(token, head, first_key + lane / 16 * 4 + j / 2 * 8) << (4 * n);
  }
  std::uint32_t kept = 0;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const std::uint32_t bits = __shfl_sync(kFullMask, drawn, lane / 16 * 16 + i * 4 + lane % 4) >> j;
#pragma unroll
    for (int n = 0; n < kTiles; ++n) kept |= (bits >> (4 * n) & 1u) << (4 * n + i);
  }
  return kept;
}

// A row's lse as finish_scores' scores are counted; +infinity, which makes every probability 0, where nothing was seen.
__device__ __forceinline__ float in_powers_of_two(float lse) { return lse == -kInfinity ? kInfinity : lse * kLog2E; }

// What the backward needs to know of this lane's two rows.
struct RowStats {
  float lse[2];  // in powers of two
  float delta[2];
};

// The gradient of the scores of a warp's 16 queries and 16 * chunks keys; 0 where a query does not see the key.
// queries and grads: the warp's 16 rows of q and grad_out; keys and values: a tile's.
template <int kD, int kChunks, bool kOptions, typename T>
__device__ __forceinline__ void score_gradients(const Terms<T>& terms, int first_row, int first_column,
                                                const T* queries, const T* grads, const T* keys, const T* values,
                                                int chunks, const RowStats& stats, float (&result)[2 * kChunks][4]) {
  const VarlenAttention& args = terms.args;
  float scores[2 * kChunks][4];
  multiply_rows<kD, kChunks>(scores, [&](int k, std::uint32_t (&a)[4]) { load_left<kD>(a, queries, k); }, keys, chunks);
  finish_scores<kOptions>(terms, first_row, first_column, scores);
  multiply_rows<kD, kChunks>(result, [&](int k, std::uint32_t (&a)[4]) { load_left<kD>(a, grads, k); }, values, chunks);
  if (kOptions && args.seed != nullptr) drop(args, terms.sentence, terms.head, first_row, first_column, chunks, result);
#pragma unroll
  for (int n = 0; n < 2 * kChunks; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float probability = ptx::exp2_approximate(scores[n][i] - stats.lse[i / 2]);
      const float kept = kOptions ? result[n][i] * args.keep_scale : result[n][i];
      result[n][i] = probability * (kept - stats.delta[i / 2]);
    }
  }
}

}  // namespace attention
}  // namespace sentcore
