// Forward kernel of varlen_attention on tensor cores; varlen_attention.h says what each tensor is.
//
// A block has 4 warps of 16 queries each. It takes 64 queries of one head, or, where sentences are short, 32 of two
// heads or 16 of four, and walks over the keys they see in tiles of 64, keeping the softmax's maximum and sum per row
// (online). What is done for a row depends on its own sentence alone: a tile always begins at a multiple of 64 of the
// sentence's keys, and one that is hidden from a row leaves its sums as they are, bit for bit.

#include "ops/varlen_attention/dispatch.cuh"
#include "ops/varlen_attention/mma_scores.cuh"

namespace sentcore {
namespace attention {
namespace {

constexpr int kKeys = 64;  // of a tile
constexpr int kChunks = kKeys / 16;

// Blocks on a multiprocessor, as many as leave each the registers it needs.
template <int kD, bool kOptions>
constexpr int kBlocks = kOptions  ? (kD > 32 ? 2 : 3)
                        : kD > 96 ? 2
                        : kD > 64 ? 3
                                  : 4;

// Shared memory: for each head of the block, a tile of its queries, one of keys, one of values.
template <typename T, int kD, bool kOptions>
__global__ void __launch_bounds__(kWarps* kWarpSize, kBlocks<kD, kOptions>)
    forward_mma(const VarlenAttentionForward args, const BlockShape shape) {
  SENTCORE_DYNAMIC_SHARED(T, shared);
  const VarlenAttention& given = args.given;
  const WarpPlace place(shape);
  const Sentence sentence(given, place.sentence);
  if (place.block_row >= sentence.length_q || sentence.length_k >= args.left_out_from ||
      sentence.is_within(args.left_out_to)) {
    return;  // the whole block leaves
  }
  const int head = place.head, lane = lane_of_thread();
  const int first_row = place.block_row + place.row;
  const bool has_head = head < given.heads;
  const bool works = has_head && first_row < sentence.length_q;

  const int own_rows = place.block_end - place.block_row;
  T* const head_shared = shared + place.slot * (own_rows + 2 * shape.rows) * kPitch<kD>;
  T* const queries = head_shared + place.row * kPitch<kD>;
  T* const keys = head_shared + own_rows * kPitch<kD>;
  T* const values = keys + shape.rows * kPitch<kD>;

  const Range visible = sentence.columns_of(place.block_row, smaller(place.block_end, sentence.length_q));
  const int first_tile = visible.begin / kKeys;
  const int end_tile = visible.begin < visible.end ? (visible.end + kKeys - 1) / kKeys : first_tile;
  const auto copy_tile = [&](T* tile, const void* from, int index) {
    if (has_head) {
      const int rows = smaller(visible.end - index * kKeys, kKeys);
      const T* source = static_cast<const T*>(from) +
                        (static_cast<std::int64_t>(sentence.first_k) + index * kKeys) * given.kv_stride +
                        head * given.size;
      copy_rows<kD>(tile, source, given.kv_stride, rows, round_up(rows, 16), given.size, place.thread, place.threads);
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

      finish_scores<kOptions>(terms, first_row, first_column, scores);

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
      if (kOptions && given.seed != nullptr) drop(given, sentence, head, first_row, first_column, chunks, scores);
    }

    ptx::copy_async_wait<0>();
    __syncthreads();  // the values are there, and the keys have been read
    if (tile + 1 < end_tile) copy_tile(keys, given.k, tile + 1);
    if (works) multiply_columns<kD, kChunks>(out, scores, values, chunks);
  }

  if (!works) return;
  float factor[2];
  finish_rows(args, sentence, head, first_row, maximum, sum, factor);
  ptx::copy_async_commit();  // queries that no key was there for are in no group yet, and a wait is for groups alone
  ptx::copy_async_wait<0>();
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
    const BlockShape shape = block_shape(given.heads, given.max_seqlen_q, rows, [&](int warps) {
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
  using namespace attention;
  VarlenAttentionForward others = args;
  if (has_short(args.given)) {
    const cudaError_t status = varlen_attention_forward_short(args, stream);
    if (status != cudaSuccess || is_short(args.given)) return status;
    others.left_out_to = kShortRows;
  }
  return for_mma<LaunchForward>(args.given, others, stream);
}

}  // namespace sentcore
