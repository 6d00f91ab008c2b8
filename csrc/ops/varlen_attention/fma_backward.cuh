// What the backward kernels with plain multiply-adds share: tiles, saved statistics, gradients of scores.
#pragma once

#include <cstdint>

#include "ops/varlen_attention/dispatch.cuh"
#include "ops/varlen_attention/fma_tiles.cuh"
#include "ops/varlen_attention/sentence.cuh"

namespace sentcore {
namespace attention {

// Floats of shared memory: tiles of queries, grad_out, keys, values, and one of scores.
template <int kR, int kD>
constexpr int kBackwardFloats = 4 * kSide * kR * kFloatPitch<kD> + kSide * kR * kFloatPitch<kSide * kR>;

// Tiles in shared memory.
template <int kR, int kD>
struct Tiles {
  static constexpr int kRows = kSide * kR;
  float* queries;
  float* grads;
  float* keys;
  float* values;
  float* scores;

  __device__ __forceinline__ explicit Tiles(float* shared)
      : queries(shared),
        grads(queries + kRows * kFloatPitch<kD>),
        keys(grads + kRows * kFloatPitch<kD>),
        values(keys + kRows * kFloatPitch<kD>),
        scores(values + kRows * kFloatPitch<kD>) {}

  template <typename T>
  __device__ __forceinline__ void load_queries(const VarlenAttentionBackward& args, const Sentence& sentence, int head,
                                               int first_row) const {
    const VarlenAttention& given = args.given;
    const std::int64_t token = static_cast<std::int64_t>(sentence.first_q) + first_row;
    const std::int64_t stride = static_cast<std::int64_t>(given.heads) * given.size;
    const int rows = sentence.length_q - first_row;
    load_rows<kRows, kD>(queries, static_cast<const T*>(given.q) + token * given.q_stride + head * given.size,
                         given.q_stride, rows, given.size);
    load_rows<kRows, kD>(grads, static_cast<const T*>(args.grad_out) + token * stride + head * given.size, stride, rows,
                         given.size);
  }

  template <typename T>
  __device__ __forceinline__ void load_keys(const VarlenAttentionBackward& args, const Sentence& sentence, int head,
                                            int first_column) const {
    const VarlenAttention& given = args.given;
    const std::int64_t start =
        (static_cast<std::int64_t>(sentence.first_k) + first_column) * given.kv_stride + head * given.size;
    const int rows = sentence.length_k - first_column;
    load_rows<kRows, kD>(keys, static_cast<const T*>(given.k) + start, given.kv_stride, rows, given.size);
    load_rows<kRows, kD>(values, static_cast<const T*>(given.v) + start, given.kv_stride, rows, given.size);
  }
};

// A row's saved statistics; they make every probability 0 beyond the sentence and where nothing was seen.
struct SavedRow {
  float lse;
  float delta;

  __device__ __forceinline__ SavedRow(const VarlenAttentionBackward& args, const Sentence& sentence, int head, int row)
      : lse(kInfinity), delta(0.0f) {
    if (row >= sentence.length_q) return;
    const std::int64_t index = (static_cast<std::int64_t>(sentence.first_q) + row) * args.given.heads + head;
    lse = args.lse[index] == -kInfinity ? kInfinity : args.lse[index];
    delta = args.delta[index];
  }
};

// One bit an element, i * kR + j: whether dropout keeps the probability of query_of(i, j) and key_of(i, j).
template <int kR, typename QueryOf, typename KeyOf>
__device__ __forceinline__ unsigned kept_bits(const VarlenAttention& args, const Sentence& sentence, int head,
                                              const QueryOf& query_of, const KeyOf& key_of) {
  if (args.seed == nullptr) return 0xffffffffu;
  const AttentionDropout dropout(args);
  unsigned bits = 0;
#pragma unroll 1
  for (int e = 0; e < kR * kR; ++e) {
    const std::int64_t token = static_cast<std::int64_t>(sentence.first_q) + query_of(e / kR, e % kR);
    bits |= dropout.keeps<1>(token, head, key_of(e / kR, e % kR)) << e;
  }
  return bits;
}

// Product of a query and a key, and that of grad_out and the value -> the probability as dropout leaves it, and the
// gradient of the score.
template <typename T>
__device__ __forceinline__ void finish(const Terms<T>& terms, int row, int column, const SavedRow& stats, bool kept,
                                       float& score, float& gradient) {
  const VarlenAttention& args = terms.args;
  const Sentence& sentence = terms.sentence;
  const Range visible = sentence.columns_of(row);
  float probability = 0.0f;
  if (row < sentence.length_q && column >= visible.begin && column < visible.end) {
    score *= args.scale;
    if (terms.any) score += terms.at(row, column);
    probability = expf(score - stats.lse);
  }
  const float keep = kept ? args.keep_scale : 0.0f;
  score = probability * keep;
  gradient = probability * (gradient * keep - stats.delta);
}

// Five tiles have to fit into the shared memory of the smallest GPU.
template <int kD>
constexpr int kRowsPerThread = kD <= 64    ? 4
                               : kD <= 128 ? 2
                                           : 1;

template <int kD>
inline LaunchShape shape_of(const VarlenAttention& given, int tiles) {
  return {dim3(grid_x(given.sentences * tiles), static_cast<unsigned>(given.heads)), dim3(kThreads),
          kBackwardFloats<kRowsPerThread<kD>, kD> * sizeof(float)};
}

}  // namespace attention
}  // namespace sentcore
