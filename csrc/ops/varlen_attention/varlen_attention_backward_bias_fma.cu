// The gradient of bias with plain multiply-adds; as varlen_attention_backward_bias_mma.cu, but a block has 16 * kR
// queries and as many keys.

#include "ops/varlen_attention/bias_gradient.cuh"
#include "ops/varlen_attention/dispatch.cuh"
#include "ops/varlen_attention/fma_backward.cuh"

namespace sentcore {
namespace attention {
namespace {

// One block a multiprocessor is asked for: left to itself ptxas aims at two on sm_86, and spills.
template <typename T, int kR, int kD>
__global__ void __launch_bounds__(kThreads, 1)
    bias_gradient_fma(const VarlenAttentionBackward args, const int column_tiles) {
  constexpr int kTile = kSide * kR;
  SENTCORE_DYNAMIC_SHARED(float, shared);
  const Tiles<kR, kD> tiles(shared);
  const int head = static_cast<int>(blockIdx.y);
  const int block_row = static_cast<int>(blockIdx.x) / column_tiles * kTile;
  const int first_column = static_cast<int>(blockIdx.x) % column_tiles * kTile;
  const int first_row = block_row + thread_y() * kR;

  float sums[kR][kR] = {};
  const SentenceGroup group(args);
  for (std::int64_t index = group.begin; index < group.end; ++index) {
    const Sentence sentence(args.given, index);
    if (!meets(sentence, block_row, kTile, first_column, kTile)) continue;  // the whole block
    tiles.template load_queries<T>(args, sentence, head, block_row);
    tiles.template load_keys<T>(args, sentence, head, first_column);
    __syncthreads();  // everything is there
    const int chunks = (smaller(sentence.length_k - first_column, kTile) + kSide - 1) / kSide;
    if (block_row + warp_row<kR>() < sentence.length_q) {
      const Terms<T> terms(args.given, sentence, head);
      float scores[kR][kR], gradients[kR][kR];
      multiply_rows<kR, kD>(scores, tiles.queries, tiles.keys, chunks);
      multiply_rows<kR, kD>(gradients, tiles.grads, tiles.values, chunks);
      const unsigned kept = kept_bits<kR>(
          args.given, sentence, head, [&](int i, int) { return first_row + i; },
          [&](int, int j) { return first_column + thread_x() + j * kSide; });
#pragma unroll
      for (int i = 0; i < kR; ++i) {
        const SavedRow stats(args, sentence, head, first_row + i);
#pragma unroll
        for (int j = 0; j < kR; ++j) {
          finish(terms, first_row + i, first_column + thread_x() + j * kSide, stats, (kept >> (i * kR + j) & 1u) != 0,
                 scores[i][j], gradients[i][j]);
          sums[i][j] += gradients[i][j];
        }
      }
    }
    __syncthreads();  // and has been read
  }
#pragma unroll
  for (int i = 0; i < kR; ++i) {
#pragma unroll
    for (int j = 0; j < kR; ++j) {
      store_sum<T>(args, head, first_row + i, first_column + thread_x() + j * kSide, sums[i][j]);
    }
  }
}

struct LaunchBiasGradient {
  template <typename T, int kD>
  static cudaError_t run(const VarlenAttentionBackward& args, cudaStream_t stream) {
    constexpr int kTile = kSide * kRowsPerThread<kD>;
    const int column_tiles = ceil_div(args.bias_columns, kTile);
    LaunchShape shape = shape_of<kD>(args.given, 0);
    const std::int64_t tiles = ceil_div(args.bias_rows, kTile) * static_cast<std::int64_t>(column_tiles);
    shape.grid = dim3(grid_x(tiles), static_cast<unsigned>(args.given.heads), static_cast<unsigned>(args.bias_groups));
    return launch(bias_gradient_fma<T, kRowsPerThread<kD>, kD>, shape, stream, args, column_tiles);
  }
};

}  // namespace
}  // namespace attention

cudaError_t varlen_attention_bias_gradient_fma(const VarlenAttentionBackward& args, cudaStream_t stream) {
  return attention::for_fma<attention::LaunchBiasGradient>(args.given, args, stream);
}

}  // namespace sentcore
