// Forward kernel of varlen_attention on tensor cores; varlen_attention.h says what each tensor is.
//
// A block has 4 warps of 16 queries each. It takes 64 queries of one head, or, where sentences are short, 32 of two
// heads or 16 of four, and walks over the keys they see in tiles of 64, keeping the softmax's maximum and sum per row
// (online). What is done for a row depends on its own sentence alone: a tile always begins at a multiple of 64 of the
// sentence's keys, and one that is hidden from a row leaves its sums as they are, bit for bit.

#include "ops/varlen_attention/dispatch.cuh"
#include "ops/varlen_attention/mma_tiles.cuh"
#include "ops/varlen_attention/sentence.cuh"

namespace sentcore {
namespace attention {
namespace {

constexpr int kKeys = 64;  // of a tile
constexpr int kChunks = kKeys / 16;

// Keeps what dropout keeps of probabilities [16 rows, kKeys] from `first_row` and `first_column` on.
template <int n_tiles>
__device__ __forceinline__ void drop(const VarlenAttention& args, const Sentence& sentence, int head, int first_row,
                                     int first_column, float (&probabilities)[n_tiles][4]) {
  const AttentionDropout dropout(args);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const std::int64_t token = sentence.first_q + first_row + fragment_row(2 * half);
    const std::uint64_t begin = dropout.index(token, head, first_column);
#pragma unroll
    for (int n = 0; n < n_tiles; ++n) {
      const unsigned kept = dropout.keeps_pair(begin + static_cast<unsigned>(fragment_column(n, 0)));
      if ((kept & 1u) == 0) probabilities[n][2 * half] = 0.0f;
      if ((kept & 2u) == 0) probabilities[n][2 * half + 1] = 0.0f;
    }
  }
}

// shape.rows: rows of a key tile in shared memory, a multiple of 16. Shared: for each head of the block, a tile of its
// queries, one of keys, one of values.
template <typename T, int kD, bool kOptions>
__global__ void __launch_bounds__(kWarps* kWarpSize)
    forward_mma(const VarlenAttentionForward args, const BlockShape shape) {
  SENTCORE_DYNAMIC_SHARED(T, shared);
  const VarlenAttention& given = args.given;
  const Sentence sentence(given, blockIdx.x / shape.tiles);
  const int warp = warp_of_thread(), lane = lane_of_thread();
  const int block_row = static_cast<int>(blockIdx.x % shape.tiles) * shape.warps_per_head * kRowsPerWarp;
  if (block_row >= sentence.length_q) return;  // the whole block leaves
  const int block_end = smaller(block_row + shape.warps_per_head * kRowsPerWarp, sentence.length_q);
  const int place = warp / shape.warps_per_head;  // of the warp's head in the block
  const int head = static_cast<int>(blockIdx.y) * (kWarps / shape.warps_per_head) + place;
  const int first_row = block_row + warp % shape.warps_per_head * kRowsPerWarp;
  const bool has_head = head < given.heads;
  const bool works = has_head && first_row < sentence.length_q;

  const int head_rows = shape.warps_per_head * kRowsPerWarp + 2 * shape.rows;
  T* const queries = shared + place * head_rows * kPitch<kD> + warp % shape.warps_per_head * kRowsPerWarp * kPitch<kD>;
  T* const keys = shared + (place * head_rows + shape.warps_per_head * kRowsPerWarp) * kPitch<kD>;
  T* const values = keys + shape.rows * kPitch<kD>;

  const Range visible = sentence.columns_of(block_row, block_end);
  const int first_tile = visible.begin / kKeys;
  const int end_tile = visible.begin < visible.end ? (visible.end + kKeys - 1) / kKeys : first_tile;
  const auto copy_tile = [&](T* tile, const void* from, int index) {
    if (has_head) {
      const int rows = smaller(visible.end - index * kKeys, kKeys);
      const T* source = static_cast<const T*>(from) +
                        (static_cast<std::int64_t>(sentence.first_k) + index * kKeys) * given.kv_stride +
                        head * given.size;
      const int threads = shape.warps_per_head * kWarpSize;
      copy_rows<kD>(tile, source, given.kv_stride, rows, round_up(rows, 16), given.size,
                    static_cast<int>(threadIdx.x) % threads, threads);
    }
    ptx::copy_async_commit();
  };

  if (works) {
    copy_rows<kD>(queries,
                  static_cast<const T*>(given.q) +
                      (static_cast<std::int64_t>(sentence.first_q) + first_row) * given.q_stride + head * given.size,
                  given.q_stride, sentence.length_q - first_row, kRowsPerWarp, given.size, lane, kWarpSize);
  }
  if (first_tile < end_tile) {
    copy_tile(keys, given.k, first_tile);
    copy_tile(values, given.v, first_tile);
  }

  float out[kD / 8][4] = {};
  float maximum[2] = {-kInfinity, -kInfinity};
  float sum[2] = {0.0f, 0.0f};  // of this lane's columns
  std::uint32_t query[kD / 16][4];
  const Terms<T> terms(given, sentence, has_head ? head : 0);
  const float scale = given.scale * kLog2E;  // scores are kept in powers of two

  for (int tile = first_tile; tile < end_tile; ++tile) {
    const int first_column = tile * kKeys;
    const int chunks = (smaller(visible.end - first_column, kKeys) + 15) / 16;
    if (tile == first_tile) {
      ptx::copy_async_wait<1>();  // all but the values
    } else {
      ptx::copy_async_wait<0>();
    }
    __syncthreads();  // the keys are there, and the last tile's values have been read
    if (tile > first_tile) copy_tile(values, given.v, tile);

    float scores[2 * kChunks][4];
    if (works) {
      if (tile == first_tile) {
#pragma unroll
        for (int k = 0; k < kD / 16; ++k) load_left<kD>(query[k], queries, k * 16);
      }
      multiply_rows<kD, kChunks>(
          scores,
          [&](int k, std::uint32_t (&a)[4]) {
#pragma unroll
            for (int i = 0; i < 4; ++i) a[i] = query[k / 16][i];
          },
          keys, chunks);

      Range mine[2];
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        mine[half] = kOptions ? sentence.columns_of(first_row + fragment_row(2 * half)) : Range{0, sentence.length_k};
      }
#pragma unroll
      for (int n = 0; n < 2 * kChunks; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int column = first_column + fragment_column(n, i);
          scores[n][i] *= scale;
          if (kOptions && terms.any) scores[n][i] += terms.at(first_row + fragment_row(i), column) * kLog2E;
          if (column < mine[i / 2].begin || column >= mine[i / 2].end) scores[n][i] = -kInfinity;
        }
      }

#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float highest = maximum[half];
#pragma unroll
        for (int n = 0; n < 2 * kChunks; ++n) {
          highest = fmaxf(highest, fmaxf(scores[n][2 * half], scores[n][2 * half + 1]));
        }
        highest = row_max(highest);
        // Nothing seen so far: any finite value makes every exponential 0.
        const float finite = highest == -kInfinity ? 0.0f : highest;
        const float shrink = ptx::exp2_approximate(maximum[half] - finite);
        maximum[half] = highest;
        sum[half] *= shrink;
#pragma unroll
        for (int n = 0; n < 2 * kChunks; ++n) {
#pragma unroll
          for (int i = 2 * half; i < 2 * half + 2; ++i) {
            scores[n][i] = ptx::exp2_approximate(scores[n][i] - finite);
            sum[half] += scores[n][i];
          }
        }
#pragma unroll
        for (int n = 0; n < kD / 8; ++n) {
          out[n][2 * half] *= shrink;
          out[n][2 * half + 1] *= shrink;
        }
      }
      if (kOptions && given.seed != nullptr) drop(given, sentence, head, first_row, first_column, scores);
    }

    ptx::copy_async_wait<0>();
    __syncthreads();  // the values are there, and the keys have been read
    if (tile + 1 < end_tile) copy_tile(keys, given.k, tile + 1);
    if (works) multiply_columns<kD, kChunks>(out, scores, values, chunks);
  }

  if (!works) return;
  float factor[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const float total = row_sum(sum[half]);
    factor[half] = total == 0.0f ? 0.0f : given.keep_scale / total;
    const int row = first_row + fragment_row(2 * half);
    if (args.lse != nullptr && lane % 4 == 0 && row < sentence.length_q) {
      args.lse[(static_cast<std::int64_t>(sentence.first_q) + row) * given.heads + head] =
          total == 0.0f ? -kInfinity : maximum[half] * kLn2 + logf(total);
    }
  }
  ptx::copy_async_wait<0>();  // queries that no key was there for
  const std::int64_t stride = static_cast<std::int64_t>(given.heads) * given.size;
  store_rows<kD>(static_cast<T*>(args.out) + (static_cast<std::int64_t>(sentence.first_q) + first_row) * stride +
                     head * given.size,
                 stride, out, factor, queries, sentence.length_q - first_row, given.size);
}

struct LaunchForward {
  template <typename T, int kD>
  static cudaError_t run(const VarlenAttentionForward& args, cudaStream_t stream) {
    const VarlenAttention& given = args.given;
    const int rows = tile_rows(given.max_seqlen_k, kKeys);
    const BlockShape shape = block_shape(given.max_seqlen_q, rows, [&](int warps) {
      return (warps * kRowsPerWarp + 2 * rows) * kPitch<kD> * static_cast<int>(sizeof(T));
    });
    const LaunchShape grid = launch_shape(given, shape);
    return has_options(given) ? launch(forward_mma<T, kD, true>, grid, stream, args, shape)
                              : launch(forward_mma<T, kD, false>, grid, stream, args, shape);
  }
};

}  // namespace
}  // namespace attention

cudaError_t varlen_attention_forward_mma(const VarlenAttentionForward& args, cudaStream_t stream) {
  return attention::for_mma<attention::LaunchForward>(args.given, args, stream);
}

}  // namespace sentcore
