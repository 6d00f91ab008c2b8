// What the kernels of varlen_attention have in common whatever computes their products: a block's sentence, the keys a
// query sees, the terms added to a score, and dropout.
#pragma once

#include <cstdint>
#include <limits>

#include "common/dtypes.cuh"
#include "common/philox.cuh"
#include "common/reduce.cuh"
#include "ops/varlen_attention/varlen_attention.h"

namespace sentcore {
namespace attention {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kLog2E = 1.44269504088896340736f;
constexpr float kLn2 = 0.69314718055994530942f;

__device__ __forceinline__ int smaller(int a, int b) { return a < b ? a : b; }
__device__ __forceinline__ int larger(int a, int b) { return a > b ? a : b; }
__device__ __forceinline__ int round_up(int value, int multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

// Rows and columns are positions in the sentence.
struct Range {
  int begin;
  int end;
};

struct Sentence {
  int first_q;  // token of row 0
  int first_k;  // token of column 0
  int length_q;
  int length_k;
  int shift;  // row i stands beside column i + shift
  int left;   // of the window; -1 for all
  int right;

  __device__ __forceinline__ Sentence(const VarlenAttention& args, std::int64_t index)
      : first_q(args.cu_seqlens_q[index]),
        first_k(args.cu_seqlens_k[index]),
        length_q(smaller(args.cu_seqlens_q[index + 1] - first_q, args.max_seqlen_q)),
        length_k(smaller(args.cu_seqlens_k[index + 1] - first_k, args.max_seqlen_k)),
        shift(length_k - length_q),
        left(args.window_left),
        right(args.window_right) {}

  __device__ __forceinline__ bool is_within(int most) const { return length_q <= most && length_k <= most; }
  // The columns that row sees, as far as the window and the sentence allow.
  __device__ __forceinline__ Range columns_of(int row) const {
    return {left < 0 ? 0 : larger(0, row + shift - left),
            right < 0 ? length_k : smaller(length_k, row + shift + right + 1)};
  }
  // The columns that some row of [begin, end) sees; begin < end.
  __device__ __forceinline__ Range columns_of(int begin, int end) const {
    return {columns_of(begin).begin, columns_of(end - 1).end};
  }
  // The rows that see some column of [begin, end); begin < end.
  __device__ __forceinline__ Range rows_of(int begin, int end) const {
    return {right < 0 ? 0 : larger(0, begin - shift - right),
            left < 0 ? length_q : smaller(length_q, end - shift + left)};
  }
};

// The terms that are added to a score: bias, and what ALiBi takes away.
template <typename T>
struct Terms {
  const VarlenAttention& args;
  const Sentence& sentence;
  int head;
  float slope;
  bool any;

  __device__ __forceinline__ Terms(const VarlenAttention& args_, const Sentence& sentence_, int head_)
      : args(args_),
        sentence(sentence_),
        head(head_),
        slope(args_.alibi_slopes == nullptr ? 0.0f : args_.alibi_slopes[head_]),
        any(args_.bias != nullptr || args_.alibi_slopes != nullptr) {}

  // Outside the sentence: some finite memory of bias' own, or 0.
  __device__ __forceinline__ float at(int row, int column) const {
    float term = 0.0f;
    if (args.bias != nullptr && row < sentence.length_q && column < sentence.length_k) {
      const std::int64_t index =
          head * args.bias_strides[0] + row * args.bias_strides[1] + column * args.bias_strides[2];
      term = args.bias_is_float32 ? static_cast<const float*>(args.bias)[index]
                                  : to_float(static_cast<const T*>(args.bias)[index]);
    }
    if (args.alibi_slopes != nullptr) {
      const int distance = row + sentence.shift - column;
      term -= slope * static_cast<float>(distance < 0 ? -distance : distance);
    }
    return term;
  }
};

// Dropout of the probabilities: an element's index is (query token * N + head) * dropout_columns + column. The count is
// a multiple of four, so that one draw serves four columns from a multiple of four on.
struct AttentionDropout {
  Dropout dropout;
  std::int64_t heads;
  std::int64_t columns;

  // Of a call with a seed.
  __device__ __forceinline__ explicit AttentionDropout(const VarlenAttention& args)
      : dropout{static_cast<std::uint64_t>(args.seed[0]), static_cast<std::uint64_t>(args.seed[1]),
                args.dropout_threshold},
        heads(args.heads),
        columns(args.dropout_columns) {}

  // Whether `count` elements from the column on are kept, one bit each; count is 1, or 4 with a column that it divides.
  template <int count>
  __device__ __forceinline__ unsigned keeps(std::int64_t token, int head, int column) const {
    return dropout.keep_bits<count>(static_cast<std::uint64_t>((token * heads + head) * columns + column));
  }
};

}  // namespace attention
}  // namespace sentcore
