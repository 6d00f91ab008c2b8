// The gradient of queries on tensor cores; varlen_attention.h says what each tensor is.
//
// With P the probabilities, dropped = P * keep / (1 - p), dP = grad_out v^T * keep / (1 - p), delta = the sum over D of
// grad_out * out, which is that over keys of P * dP, and dS = P * (dP - delta):
//   grad_q = scale * dS k      grad_k = scale * dS^T q      grad_v = dropped^T grad_out      grad_bias = sum of dS
//
// This kernel comes first and leaves delta for the others. A warp has 16 queries and walks over the keys they see. out
// is rounded, and so is delta then; that would show in the gradient of a float32 bias, for which delta is summed over
// the keys instead, in a walk of its own.

#include "ops/varlen_attention/dispatch.cuh"
#include "ops/varlen_attention/mma_scores.cuh"

namespace sentcore {
namespace attention {
namespace {

constexpr int kKeys = 32;  // of a tile
constexpr int kChunks = kKeys / 16;

// What two lanes hold of a row of out: lane l of row l / 2, every other pack.
template <int kD, typename T>
struct OutRows {
  Elements<T, 8> packs[kD / 16];

  __device__ __forceinline__ OutRows(const T* out, std::int64_t stride, int rows, int size) {
    const int row = lane_of_thread() / 2, first = lane_of_thread() % 2 * 8;
#pragma unroll
    for (int i = 0; i < kD / 16; ++i) {
      const int column = first + 16 * i;
      packs[i] = load_if<8>(row < rows && column < size, out + row * stride + column);
    }
  }

  // delta of the warp's 16 rows: every lane gets those of its own two rows.
  __device__ __forceinline__ void deltas(const T* grads, int rows, int size, float (&delta)[2]) const {
    const int row = lane_of_thread() / 2, first = lane_of_thread() % 2 * 8;
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < kD / 16; ++i) {
      const int column = first + 16 * i;
      if (row >= rows || column >= size) continue;
      float a[8], b[8];
      convert(packs[i], a);
      read_pack(grads + row * kPitch<kD> + column, b);
#pragma unroll
      for (int j = 0; j < 8; ++j) sum += a[j] * b[j];
    }
    sum += __shfl_xor_sync(kFullMask, sum, 1);
#pragma unroll
    for (int half = 0; half < 2; ++half) delta[half] = __shfl_sync(kFullMask, sum, 2 * fragment_row(2 * half));
  }
};

// Blocks on a multiprocessor, as many as leave each the registers it needs.
template <int kD, bool kOptions>
constexpr int kBlocks = (kD > 96 ? 3 : 4) - (kOptions ? 1 : 0);

// Shared memory: for each head of the block, tiles of its queries and their grad_out, and two stages of keys and
// values.
template <typename T, int kD, bool kOptions>
__global__ void __launch_bounds__(kWarps* kWarpSize, kBlocks<kD, kOptions>)
    query_gradients_mma(const VarlenAttentionBackward args, const BlockShape shape, const int stages) {
  SENTCORE_DYNAMIC_SHARED(T, shared);
  const VarlenAttention& given = args.given;
  const WarpPlace place(shape);
  const Sentence sentence(given, place.sentence);
  if (place.block_row >= sentence.length_q) return;  // the whole block leaves
  const int head = place.head;
  const int first_row = place.block_row + place.row;
  const bool has_head = head < given.heads;
  const bool works = has_head && first_row < sentence.length_q;

  const int own_rows = place.block_end - place.block_row;
  T* const head_shared = shared + place.slot * (2 * own_rows + 2 * stages * shape.rows) * kPitch<kD>;
  T* const queries = head_shared + place.row * kPitch<kD>;
  T* const grads = queries + own_rows * kPitch<kD>;
  T* const stage_0 = head_shared + 2 * own_rows * kPitch<kD>;
  const Range visible = sentence.columns_of(place.block_row, smaller(place.block_end, sentence.length_q));
  const int first_tile = visible.begin / kKeys;
  const int end_tile = visible.begin < visible.end ? (visible.end + kKeys - 1) / kKeys : first_tile;
  const int tiles = end_tile - first_tile;
  const bool exact = kOptions && args.grad_bias != nullptr && given.bias_is_float32;
  const int steps = exact ? 2 * tiles : tiles;  // the walks, one after the other
  const auto keys_of = [&](int step) { return stage_0 + (tiles > 1 ? step % 2 : 0) * 2 * shape.rows * kPitch<kD>; };
  const auto values_of = [&](int step) { return keys_of(step) + shape.rows * kPitch<kD>; };
  const auto copy_tile = [&](int step) {
    if (has_head) {
      const int tile = first_tile + step % tiles;
      const int rows = smaller(visible.end - tile * kKeys, kKeys);
      const std::int64_t start =
          (static_cast<std::int64_t>(sentence.first_k) + tile * kKeys) * given.kv_stride + head * given.size;
      copy_rows<kD>(keys_of(step), static_cast<const T*>(given.k) + start, given.kv_stride, rows, round_up(rows, 16),
                    given.size, place.thread, place.threads);
      copy_rows<kD>(values_of(step), static_cast<const T*>(given.v) + start, given.kv_stride, rows, round_up(rows, 16),
                    given.size, place.thread, place.threads);
    }
    ptx::copy_async_commit();
  };

  const std::int64_t token = static_cast<std::int64_t>(sentence.first_q) + first_row;
  const std::int64_t out_stride = static_cast<std::int64_t>(given.heads) * given.size;
  const int rows = sentence.length_q - first_row;
  if (works) {
    copy_rows<kD>(queries, static_cast<const T*>(given.q) + token * given.q_stride + head * given.size, given.q_stride,
                  rows, kRowsPerWarp, given.size, lane_of_thread(), kWarpSize);
    copy_rows<kD>(grads, static_cast<const T*>(args.grad_out) + token * out_stride + head * given.size, out_stride,
                  rows, kRowsPerWarp, given.size, lane_of_thread(), kWarpSize);
  }
  ptx::copy_async_commit();
  if (steps > 0) copy_tile(0);

  RowStats stats{};
  if (works) {
    // Under way beside the copies, not behind them.
    const OutRows<kD, T> out(static_cast<const T*>(args.out) + token * out_stride + head * given.size, out_stride,
                             exact ? 0 : rows, given.size);
    std::int64_t index[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = fragment_row(2 * half);
      index[half] = (token + row) * given.heads + head;
      stats.lse[half] = row < rows ? args.lse[index[half]] : -kInfinity;
    }
    if (steps > 0) {
      ptx::copy_async_wait<1>();
    } else {
      ptx::copy_async_wait<0>();
    }
    __syncwarp();  // the warp's rows are there
    if (!exact) out.deltas(grads, rows, given.size, stats.delta);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      stats.lse[half] = in_powers_of_two(stats.lse[half]);
      if (fragment_row(2 * half) < rows && lane_of_thread() % 4 == 0) args.delta[index[half]] = stats.delta[half];
    }
  }

  const Terms<T> terms(given, sentence, has_head ? head : 0);
  float sums[kD / 8][4] = {};
  [[maybe_unused]] float delta_sums[2] = {0.0f, 0.0f};  // of this lane's columns
  for (int step = 0; step < steps; ++step) {
    ptx::copy_async_wait<0>();
    __syncthreads();  // this tile is there, and the other stage has been read
    if (tiles > 1 && step + 1 < steps) copy_tile(step + 1);
    if (!works) continue;
    const int first_column = (first_tile + step % tiles) * kKeys;
    const int chunks = (smaller(visible.end - first_column, kKeys) + 15) / 16;
    float gradients[2 * kChunks][4];
    score_gradients<kD, kChunks, kOptions>(terms, first_row, first_column, queries, grads, keys_of(step),
                                           values_of(step), chunks, stats, gradients);
    if constexpr (kOptions) {
      if (exact && step < tiles) {
#pragma unroll
        for (int n = 0; n < 2 * kChunks; ++n) {  // with delta still 0 these are P * dP
#pragma unroll
          for (int i = 0; i < 4; ++i) delta_sums[i / 2] += gradients[n][i];
        }
        if (step == tiles - 1) {
#pragma unroll
          for (int half = 0; half < 2; ++half) {
            const int row = fragment_row(2 * half);
            stats.delta[half] = row_sum(delta_sums[half]);
            if (row < rows && lane_of_thread() % 4 == 0) {
              args.delta[(token + row) * given.heads + head] = stats.delta[half];
            }
          }
        }
        continue;
      }
    }
    multiply_columns<kD, kChunks>(sums, gradients, keys_of(step), chunks);
  }

  if (!works) return;
  const float factor[2] = {given.scale, given.scale};
  store_rows<kD>(static_cast<T*>(args.grad_q) + token * given.q_stride + head * given.size, given.q_stride, sums,
                 factor, queries, rows, given.size);
}

struct LaunchQueryGradients {
  template <typename T, int kD>
  static cudaError_t run(const VarlenAttentionBackward& args, cudaStream_t stream) {
    const VarlenAttention& given = args.given;
    const int rows = tile_rows(given.max_seqlen_k, kKeys);
    const int stages = given.max_seqlen_k > kKeys ? 2 : 1;
    const BlockShape shape = block_shape(given.heads, given.max_seqlen_q, rows, [&](int warps) {
      return (2 * warps * kRowsPerWarp + 2 * stages * rows) * kPitch<kD> * static_cast<int>(sizeof(T));
    });
    const LaunchShape grid = launch_shape(given, shape);
    return has_options(given) ? launch(query_gradients_mma<T, kD, true>, grid, stream, args, shape, stages)
                              : launch(query_gradients_mma<T, kD, false>, grid, stream, args, shape, stages);
  }
};

}  // namespace
}  // namespace attention

cudaError_t varlen_attention_query_gradients_mma(const VarlenAttentionBackward& args, cudaStream_t stream) {
  return attention::for_mma<attention::LaunchQueryGradients>(args.given, args, stream);
}

}  // namespace sentcore
