// Forward kernel of varlen_attention with plain multiply-adds, for float32, which stays full precision, and for every D
// that the tensor cores do not take; varlen_attention.h says what each tensor is.
//
// A block takes 16 * kR queries of one head and walks over the keys they see in tiles of as many, keeping the softmax's
// maximum and sum per row (online). As in the other kernel, what is done for a row depends on its own sentence alone.

#include "common/choices/choices.h"
#include "ops/varlen_attention/dispatch.cuh"
#include "ops/varlen_attention/fma_tiles.cuh"
#include "ops/varlen_attention/sentence.cuh"

namespace sentcore {
namespace attention {
namespace {

// Floats of shared memory: tiles of queries, of keys or values, and of probabilities.
template <int kR, int kD>
constexpr int kForwardFloats = 2 * kSide * kR * kFloatPitch<kD> + kSide * kR * kFloatPitch<kSide * kR>;

// Keeps what dropout keeps of the probabilities that this thread wrote.
template <int kR>
__device__ __forceinline__ void drop(const VarlenAttention& args, const Sentence& sentence, int head, int first_row,
                                     int first_column, float* probabilities) {
  const AttentionDropout dropout(args);
#pragma unroll 1
  for (int i = 0; i < kR * kR; ++i) {
    const int row = first_row + i / kR, column = thread_x() + i % kR * kSide;
    const std::int64_t token = static_cast<std::int64_t>(sentence.first_q) + row;
    if (dropout.keeps<1>(token, head, first_column + column) == 0) {
      probabilities[(thread_y() * kR + i / kR) * kFloatPitch<kSide * kR> + column] = 0.0f;
    }
  }
}

template <typename T, int kR, int kD>
__global__ void __launch_bounds__(kThreads) forward_fma(const VarlenAttentionForward args, const int tiles) {
  constexpr int kTile = kSide * kR;
  SENTCORE_DYNAMIC_SHARED(float, queries);
  float* const keys_or_values = queries + kTile * kFloatPitch<kD>;
  float* const probabilities = keys_or_values + kTile * kFloatPitch<kD>;
  const VarlenAttention& given = args.given;
  const Sentence sentence(given, blockIdx.x / tiles);
  const int head = static_cast<int>(blockIdx.y);
  const int block_row = static_cast<int>(blockIdx.x % tiles) * kTile;
  if (block_row >= sentence.length_q) return;  // the whole block leaves
  const int block_end = smaller(block_row + kTile, sentence.length_q);
  const int first_row = block_row + thread_y() * kR;
  // All or none of a warp.
  const bool works = block_row + warp_row<kR>() < sentence.length_q;

  load_rows<kTile, kD>(queries,
                       static_cast<const T*>(given.q) +
                           (static_cast<std::int64_t>(sentence.first_q) + block_row) * given.q_stride +
                           head * given.size,
                       given.q_stride, block_end - block_row, given.size);
  const Range visible = sentence.columns_of(block_row, block_end);
  const Terms<T> terms(given, sentence, head);
  float out[kR][kD / kSide] = {};
  float maximum[kR], sum[kR] = {};
#pragma unroll
  for (int i = 0; i < kR; ++i) maximum[i] = -kInfinity;

  for (int first_column = visible.begin / kTile * kTile; first_column < visible.end; first_column += kTile) {
    const int columns = smaller(visible.end - first_column, kTile);
    const int chunks = (columns + kSide - 1) / kSide;
    const auto load_tile = [&](const void* from) {
      load_rows<kTile, kD>(keys_or_values,
                           static_cast<const T*>(from) +
                               (static_cast<std::int64_t>(sentence.first_k) + first_column) * given.kv_stride +
                               head * given.size,
                           given.kv_stride, columns, given.size);
    };
    load_tile(given.k);
    __syncthreads();  // queries and keys are there
    if (works) {
      float scores[kR][kR];
      multiply_rows<kR, kD>(scores, queries, keys_or_values, chunks);
#pragma unroll
      for (int i = 0; i < kR; ++i) {
        const int row = first_row + i;
        const Range mine = sentence.columns_of(row);
        float highest = maximum[i];
#pragma unroll
        for (int j = 0; j < kR; ++j) {
          const int column = first_column + thread_x() + j * kSide;
          scores[i][j] *= given.scale;
          if (terms.any) scores[i][j] += terms.at(row, column);
          if (column < mine.begin || column >= mine.end) scores[i][j] = -kInfinity;
          highest = fmaxf(highest, scores[i][j]);
        }
        highest = side_max(highest);
        // Nothing seen so far: any finite value makes every exponential 0.
        const float finite = highest == -kInfinity ? 0.0f : highest;
        const float shrink = expf(maximum[i] - finite);
        maximum[i] = highest;
        sum[i] *= shrink;
#pragma unroll
        for (int j = 0; j < kR; ++j) {
          scores[i][j] = expf(scores[i][j] - finite);
          sum[i] += scores[i][j];
        }
#pragma unroll
        for (int c = 0; c < kD / kSide; ++c) out[i][c] *= shrink;
      }
      write_scores<kR>(probabilities, scores);
      if (given.seed != nullptr) drop<kR>(given, sentence, head, first_row, first_column, probabilities);
    }
    __syncthreads();  // the keys have been read
    load_tile(given.v);
    __syncthreads();  // the values are there, and so are the probabilities
    if (works) multiply_columns<kR, kD>(out, probabilities, keys_or_values, chunks);
    __syncthreads();  // the values have been read
  }

  if (!works) return;
#pragma unroll
  for (int i = 0; i < kR; ++i) {
    const float total = side_sum(sum[i]);
    const int row = first_row + i;
    if (row >= sentence.length_q) continue;
    const std::int64_t place = (static_cast<std::int64_t>(sentence.first_q) + row) * given.heads + head;
    store_row<kD>(static_cast<T*>(args.out) + place * given.size, out[i],
                  total == 0.0f ? 0.0f : given.keep_scale / total, given.size);
    if (args.lse != nullptr && thread_x() == 0) {
      args.lse[place] = total == 0.0f ? -kInfinity : maximum[i] + logf(total);
    }
  }
}

struct LaunchForward {
  template <typename T, int kD>
  static cudaError_t run(const VarlenAttentionForward& args, cudaStream_t stream) {
    constexpr int kR = kD <= 128 ? 4 : 2;
    const int tiles = ceil_div(args.given.max_seqlen_q, kSide * kR);
    const LaunchShape shape{dim3(grid_x(args.given.sentences * tiles), static_cast<unsigned>(args.given.heads)),
                            dim3(kThreads), kForwardFloats<kR, kD> * sizeof(float)};
    return launch(forward_fma<T, kR, kD>, shape, stream, args, tiles);
  }
};

}  // namespace
}  // namespace attention

cudaError_t varlen_attention_forward_fma(const VarlenAttentionForward& args, cudaStream_t stream) {
  return attention::for_fma<attention::LaunchForward>(args.given, args, stream);
}

cudaError_t varlen_attention_forward_cuda(const VarlenAttentionForward& args, cudaStream_t stream) {
  if (!attention::uses_mma(args.given)) return varlen_attention_forward_fma(args, stream);
#ifdef SENTCORE_WITH_SM90A
  // Each sentence is one kernel's by its own length, whatever else is in the batch.
  const int from = attention::fits_sm90a(args.given) ? sm90a_attention_from(args.given.dtype, args.given.size) : kNever;
  if (from <= args.given.max_seqlen_k) {
    const cudaError_t status = varlen_attention_forward_sm90a(args, from, stream);
    if (status != cudaSuccess) return status;
    VarlenAttentionForward others = args;
    others.left_out_from = from;
    return varlen_attention_forward_mma(others, stream);
  }
#endif
  return varlen_attention_forward_mma(args, stream);
}

}  // namespace sentcore
