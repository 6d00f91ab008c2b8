// What both kernels of bias' gradient share: a group's sentences, which of them a tile meets, where its sums go.
#pragma once

#include <cstdint>

#include "ops/varlen_attention/sentence.cuh"

namespace sentcore {
namespace attention {

// The sentences of group blockIdx.z.
struct SentenceGroup {
  std::int64_t begin;
  std::int64_t end;

  __device__ __forceinline__ explicit SentenceGroup(const VarlenAttentionBackward& args)
      : begin(args.given.sentences * blockIdx.z / args.bias_groups),
        end(args.given.sentences * (blockIdx.z + 1) / args.bias_groups) {}
};

// Whether the sentence has anything in a tile, as far as the window tells.
__device__ __forceinline__ bool meets(const Sentence& sentence, int first_row, int rows, int first_column,
                                      int columns) {
  if (first_row >= sentence.length_q || first_column >= sentence.length_k) return false;
  const Range visible = sentence.columns_of(first_row, smaller(first_row + rows, sentence.length_q));
  return visible.begin < first_column + columns && visible.end > first_column;
}

// A group's sum for one element, of [N, Sq, Sk] or beyond it: to grad_bias where there is but one group, else to
// partial.
template <typename T>
__device__ __forceinline__ void store_sum(const VarlenAttentionBackward& args, int head, int row, int column,
                                          float sum) {
  if (row >= args.bias_rows || column >= args.bias_columns) return;
  const std::int64_t index = (static_cast<std::int64_t>(head) * args.bias_rows + row) * args.bias_columns + column;
  if (args.partial != nullptr) {
    const std::int64_t elements = static_cast<std::int64_t>(args.given.heads) * args.bias_rows * args.bias_columns;
    args.partial[blockIdx.z * elements + index] = sum;
  } else if (args.given.bias_is_float32) {
    static_cast<float*>(args.grad_bias)[index] = sum;
  } else {
    static_cast<T*>(args.grad_bias)[index] = from_float<T>(sum);
  }
}

}  // namespace attention
}  // namespace sentcore
