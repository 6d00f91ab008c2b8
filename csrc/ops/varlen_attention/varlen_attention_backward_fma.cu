// The backward kernels of varlen_attention with plain multiply-adds, for float32 and for every D that the tensor cores
// do not take. The formulas are in varlen_attention_backward_query_mma.cu; the parts are the same.
//
// A block has 16 * kR rows of one head, queries or keys, and walks over tiles of as many of the others.

#include "ops/varlen_attention/dispatch.cuh"
#include "ops/varlen_attention/fma_backward.cuh"

namespace sentcore {
namespace attention {
namespace {

// ---- queries ----

template <typename T, int kR, int kD>
__global__ void __launch_bounds__(kThreads, 2)
    query_gradients_fma(const VarlenAttentionBackward args, const int count) {
  constexpr int kTile = kSide * kR;
  SENTCORE_DYNAMIC_SHARED(float, shared);
  const Tiles<kR, kD> tiles(shared);
  const VarlenAttention& given = args.given;
  const Sentence sentence(given, blockIdx.x / static_cast<unsigned>(count));
  const int head = static_cast<int>(blockIdx.y);
  const int block_row = static_cast<int>(blockIdx.x % static_cast<unsigned>(count)) * kTile;
  if (block_row >= sentence.length_q) return;  // the whole block leaves
  const int first_row = block_row + thread_y() * kR;
  const bool works = block_row + warp_row<kR>() < sentence.length_q;  // all or none of a warp

  tiles.template load_queries<T>(args, sentence, head, block_row);
  const std::int64_t first_place = (static_cast<std::int64_t>(sentence.first_q) + block_row) * given.heads + head;
  const std::int64_t stride = static_cast<std::int64_t>(given.heads) * given.size;
  load_rows<kTile, kD>(tiles.keys, static_cast<const T*>(args.out) + first_place * given.size, stride,
                       sentence.length_q - block_row, given.size);
  __syncthreads();  // grad_out and out are there
  // delta, added up in the order in which multiply_rows adds: where a row sees one key, and out is its value, the
  // gradient of the score is then exactly 0.
  const int own = static_cast<int>(threadIdx.x);
  if (own < kTile && block_row + own < sentence.length_q) {
    float sum = 0.0f;
    for (int d = 0; d < kD; d += 4) {
      float a[4], b[4];
      read_pack(tiles.grads + own * kFloatPitch<kD> + d, a);
      read_pack(tiles.keys + own * kFloatPitch<kD> + d, b);
#pragma unroll
      for (int c = 0; c < 4; ++c) sum += a[c] * b[c];
    }
    args.delta[first_place + own * static_cast<std::int64_t>(given.heads)] = sum;
  }
  __syncthreads();  // delta is written, and out has been read

  const Terms<T> terms(given, sentence, head);
  const Range visible = sentence.columns_of(block_row, smaller(block_row + kTile, sentence.length_q));
  float sums[kR][kD / kSide] = {};
  for (int first_column = visible.begin / kTile * kTile; first_column < visible.end; first_column += kTile) {
    const int chunks = (smaller(visible.end - first_column, kTile) + kSide - 1) / kSide;
    tiles.template load_keys<T>(args, sentence, head, first_column);
    __syncthreads();  // the tile is there
    if (works) {
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
        }
      }
      write_scores<kR>(tiles.scores, gradients);
      __syncwarp();  // the warp's rows of them are there
      multiply_columns<kR, kD>(sums, tiles.scores, tiles.keys, chunks);
    }
    __syncthreads();  // the tile has been read
  }
#pragma unroll
  for (int i = 0; i < kR; ++i) {
    const int row = first_row + i;
    if (row >= sentence.length_q) continue;
    const std::int64_t token = static_cast<std::int64_t>(sentence.first_q) + row;
    store_row<kD>(static_cast<T*>(args.grad_q) + token * given.q_stride + head * given.size, sums[i], given.scale,
                  given.size);
  }
}

// ---- keys and values: rows are keys, columns queries ----

template <typename T, int kR, int kD>
__global__ void __launch_bounds__(kThreads, 2) key_gradients_fma(const VarlenAttentionBackward args, const int count) {
  constexpr int kTile = kSide * kR;
  SENTCORE_DYNAMIC_SHARED(float, shared);
  const Tiles<kR, kD> tiles(shared);
  const VarlenAttention& given = args.given;
  const Sentence sentence(given, blockIdx.x / static_cast<unsigned>(count));
  const int head = static_cast<int>(blockIdx.y);
  const int block_row = static_cast<int>(blockIdx.x % static_cast<unsigned>(count)) * kTile;
  if (block_row >= sentence.length_k) return;  // the whole block leaves
  const int first_row = block_row + thread_y() * kR;
  const bool works = block_row + warp_row<kR>() < sentence.length_k;  // all or none of a warp

  tiles.template load_keys<T>(args, sentence, head, block_row);
  const Terms<T> terms(given, sentence, head);
  const Range seen_by = sentence.rows_of(block_row, smaller(block_row + kTile, sentence.length_k));
  float key_sums[kR][kD / kSide] = {}, value_sums[kR][kD / kSide] = {};
  for (int first_query = seen_by.begin / kTile * kTile; first_query < seen_by.end; first_query += kTile) {
    const int chunks = (smaller(seen_by.end - first_query, kTile) + kSide - 1) / kSide;
    tiles.template load_queries<T>(args, sentence, head, first_query);
    __syncthreads();  // the tile is there
    if (works) {
      float scores[kR][kR], gradients[kR][kR];
      multiply_rows<kR, kD>(scores, tiles.keys, tiles.queries, chunks);
      multiply_rows<kR, kD>(gradients, tiles.values, tiles.grads, chunks);
      const unsigned kept = kept_bits<kR>(
          args.given, sentence, head, [&](int, int j) { return first_query + thread_x() + j * kSide; },
          [&](int i, int) { return first_row + i; });
#pragma unroll
      for (int j = 0; j < kR; ++j) {
        const int query = first_query + thread_x() + j * kSide;
        const SavedRow stats(args, sentence, head, query);
#pragma unroll
        for (int i = 0; i < kR; ++i) {
          finish(terms, query, first_row + i, stats, (kept >> (i * kR + j) & 1u) != 0, scores[i][j], gradients[i][j]);
        }
      }
      write_scores<kR>(tiles.scores, scores);
      __syncwarp();  // the warp's rows of the probabilities are there
      multiply_columns<kR, kD>(value_sums, tiles.scores, tiles.grads, chunks);
      __syncwarp();  // and have been read
      write_scores<kR>(tiles.scores, gradients);
      __syncwarp();  // the warp's rows of the gradients are there
      multiply_columns<kR, kD>(key_sums, tiles.scores, tiles.queries, chunks);
    }
    __syncthreads();  // the tile has been read
  }
#pragma unroll
  for (int i = 0; i < kR; ++i) {
    const int row = first_row + i;
    if (row >= sentence.length_k) continue;
    const std::int64_t start =
        (static_cast<std::int64_t>(sentence.first_k) + row) * given.kv_stride + head * given.size;
    store_row<kD>(static_cast<T*>(args.grad_k) + start, key_sums[i], given.scale, given.size);
    store_row<kD>(static_cast<T*>(args.grad_v) + start, value_sums[i], 1.0f, given.size);
  }
}

// ---- launches ----

struct LaunchQueryGradients {
  template <typename T, int kD>
  static cudaError_t run(const VarlenAttentionBackward& args, cudaStream_t stream) {
    const int tiles = ceil_div(args.given.max_seqlen_q, kSide * kRowsPerThread<kD>);
    return launch(query_gradients_fma<T, kRowsPerThread<kD>, kD>, shape_of<kD>(args.given, tiles), stream, args, tiles);
  }
};

struct LaunchKeyGradients {
  template <typename T, int kD>
  static cudaError_t run(const VarlenAttentionBackward& args, cudaStream_t stream) {
    const int tiles = ceil_div(args.given.max_seqlen_k, kSide * kRowsPerThread<kD>);
    return launch(key_gradients_fma<T, kRowsPerThread<kD>, kD>, shape_of<kD>(args.given, tiles), stream, args, tiles);
  }
};

}  // namespace
}  // namespace attention

cudaError_t varlen_attention_query_gradients_fma(const VarlenAttentionBackward& args, cudaStream_t stream) {
  return attention::for_fma<attention::LaunchQueryGradients>(args.given, args, stream);
}

cudaError_t varlen_attention_key_gradients_fma(const VarlenAttentionBackward& args, cudaStream_t stream) {
  return attention::for_fma<attention::LaunchKeyGradients>(args.given, args, stream);
}

}  // namespace sentcore
