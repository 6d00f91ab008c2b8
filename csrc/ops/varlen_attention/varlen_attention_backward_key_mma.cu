// The gradients of keys and values on tensor cores; varlen_attention_backward_query_mma.cu has the formulas, and leaves
// delta. A warp has 16 keys and walks over the queries that see them, with scores turned: rows are keys, columns
// queries.

#include "ops/varlen_attention/dispatch.cuh"
#include "ops/varlen_attention/mma_scores.cuh"

namespace sentcore {
namespace attention {
namespace {

// Of a tile; a large D leaves registers for fewer.
template <int kD>
constexpr int kQueriesOf = kD > 96 ? 16 : 32;

// The statistics of a tile's queries.
template <int kQueries>
struct TileStats {
  float lse[kQueries];  // in powers of two
  float delta[kQueries];
};

// scores [keys, queries] -> probabilities.
template <bool kOptions, int kTiles, typename T>
__device__ __forceinline__ void finish_turned(const Terms<T>& terms, int first_key, int first_query,
                                              const TileStats<8 * kTiles>& stats, float (&scores)[kTiles][4]) {
  const float scale = terms.args.scale * kLog2E;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int key = first_key + fragment_row(2 * half);
    const Range mine = kOptions ? terms.sentence.rows_of(key, key + 1) : Range{0, terms.sentence.length_q};
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
#pragma unroll
      for (int i = 2 * half; i < 2 * half + 2; ++i) {
        const int column = fragment_column(n, i), query = first_query + column;
        float score = scores[n][i] * scale;
        if (kOptions && terms.any) score += terms.at(query, key) * kLog2E;
        const bool sees = query >= mine.begin && query < mine.end;
        scores[n][i] = sees ? ptx::exp2_approximate(score - stats.lse[column]) : 0.0f;
      }
    }
  }
}

// Blocks on a multiprocessor, as many as leave each the registers it needs.
template <int kD, bool kOptions>
constexpr int kBlocks = kD > 64 || kOptions ? 2 : 3;

// Shared memory: for each head of the block, tiles of its keys and values, and two stages of queries and their
// grad_out.
template <typename T, int kD, bool kOptions>
__global__ void __launch_bounds__(kWarps* kWarpSize, kBlocks<kD, kOptions>)
    key_gradients_mma(const VarlenAttentionBackward args, const BlockShape shape, const int stages) {
  SENTCORE_DYNAMIC_SHARED(T, shared);
  constexpr int kQueries = kQueriesOf<kD>, kChunks = kQueries / 16;
  SENTCORE_SHARED(TileStats<kQueries>, tile_stats, [kWarps][2]);  // of the block's heads, in two stages
  const VarlenAttention& given = args.given;
  const WarpPlace place(shape);
  const Sentence sentence(given, place.sentence);
  if (place.block_row >= sentence.length_k) return;  // the whole block leaves
  const int head = place.head;
  const int first_key = place.block_row + place.row;
  const bool has_head = head < given.heads;
  const bool works = has_head && first_key < sentence.length_k;

  const int own_rows = place.block_end - place.block_row;
  T* const head_shared = shared + place.slot * (2 * own_rows + 2 * stages * shape.rows) * kPitch<kD>;
  T* const keys = head_shared + place.row * kPitch<kD>;
  T* const values = keys + own_rows * kPitch<kD>;
  T* const stage_0 = head_shared + 2 * own_rows * kPitch<kD>;
  const auto queries_of = [&](int tile) { return stage_0 + tile % stages * 2 * shape.rows * kPitch<kD>; };
  const auto grads_of = [&](int tile) { return queries_of(tile) + shape.rows * kPitch<kD>; };

  const Range seen_by = sentence.rows_of(place.block_row, smaller(place.block_end, sentence.length_k));
  const int first_tile = seen_by.begin / kQueries;
  const int end_tile = seen_by.begin < seen_by.end ? (seen_by.end + kQueries - 1) / kQueries : first_tile;
  const std::int64_t out_stride = static_cast<std::int64_t>(given.heads) * given.size;
  const auto copy_tile = [&](int tile) {
    if (has_head) {
      const int rows = smaller(seen_by.end - tile * kQueries, kQueries);
      const std::int64_t token = static_cast<std::int64_t>(sentence.first_q) + tile * kQueries;
      copy_rows<kD>(queries_of(tile), static_cast<const T*>(given.q) + token * given.q_stride + head * given.size,
                    given.q_stride, rows, round_up(rows, 16), given.size, place.thread, place.threads);
      copy_rows<kD>(grads_of(tile), static_cast<const T*>(args.grad_out) + token * out_stride + head * given.size,
                    out_stride, rows, round_up(rows, 16), given.size, place.thread, place.threads);
      if (place.thread < kQueries) {
        const bool inside = place.thread < rows;
        const std::int64_t index = (token + place.thread) * given.heads + head;
        TileStats<kQueries>& stats = tile_stats[place.slot][tile % 2];
        stats.lse[place.thread] = inside ? in_powers_of_two(args.lse[index]) : kInfinity;
        stats.delta[place.thread] = inside ? args.delta[index] : 0.0f;
      }
    }
    ptx::copy_async_commit();
  };

  const std::int64_t token = static_cast<std::int64_t>(sentence.first_k) + first_key;
  const std::int64_t start = token * given.kv_stride + head * given.size;
  const int rows = sentence.length_k - first_key;
  if (works) {
    copy_rows<kD>(keys, static_cast<const T*>(given.k) + start, given.kv_stride, rows, kRowsPerWarp, given.size,
                  lane_of_thread(), kWarpSize);
    copy_rows<kD>(values, static_cast<const T*>(given.v) + start, given.kv_stride, rows, kRowsPerWarp, given.size,
                  lane_of_thread(), kWarpSize);
  }
  if (first_tile < end_tile) copy_tile(first_tile);

  const Terms<T> terms(given, sentence, has_head ? head : 0);
  float key_sums[kD / 8][4] = {}, value_sums[kD / 8][4] = {};
  for (int tile = first_tile; tile < end_tile; ++tile) {
    ptx::copy_async_wait<0>();
    __syncthreads();  // this tile is there, and the other stage has been read
    if (tile + 1 < end_tile) copy_tile(tile + 1);
    if (!works) continue;
    const int first_query = tile * kQueries;
    const int chunks = (smaller(seen_by.end - first_query, kQueries) + 15) / 16;
    const TileStats<kQueries>& stats = tile_stats[place.slot][tile % 2];
    std::uint32_t kept = 0xffffffffu;
    if (kOptions && given.seed != nullptr)
      kept = kept_turned<2 * kChunks>(given, sentence, head, first_key, first_query, chunks);

    float probabilities[2 * kChunks][4], gradients[2 * kChunks][4];
    multiply_rows<kD, kChunks>(
        probabilities, [&](int k, std::uint32_t (&a)[4]) { load_left<kD>(a, keys, k); }, queries_of(tile), chunks);
    finish_turned<kOptions>(terms, first_key, first_query, stats, probabilities);
    multiply_rows<kD, kChunks>(
        gradients, [&](int k, std::uint32_t (&a)[4]) { load_left<kD>(a, values, k); }, grads_of(tile), chunks);
#pragma unroll
    for (int n = 0; n < 2 * kChunks; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const bool keep = !kOptions || (kept >> (n * 4 + i) & 1u) != 0;
        const float gradient = !kOptions ? gradients[n][i] : keep ? gradients[n][i] * given.keep_scale : 0.0f;
        gradients[n][i] = probabilities[n][i] * (gradient - stats.delta[fragment_column(n, i)]);
        if (!keep) probabilities[n][i] = 0.0f;
      }
    }
    multiply_columns<kD, kChunks>(value_sums, probabilities, grads_of(tile), chunks);
    multiply_columns<kD, kChunks>(key_sums, gradients, queries_of(tile), chunks);
  }

  if (!works) return;
  ptx::copy_async_commit();  // keys and values that no query saw are in no group yet, and a wait is for groups alone
  ptx::copy_async_wait<0>();
  const float key_factor[2] = {given.scale, given.scale}, value_factor[2] = {given.keep_scale, given.keep_scale};
  store_rows<kD>(static_cast<T*>(args.grad_k) + start, given.kv_stride, key_sums, key_factor, keys, rows, given.size);
  store_rows<kD>(static_cast<T*>(args.grad_v) + start, given.kv_stride, value_sums, value_factor, values, rows,
                 given.size);
}

struct LaunchKeyGradients {
  template <typename T, int kD>
  static cudaError_t run(const VarlenAttentionBackward& args, cudaStream_t stream) {
    constexpr int kQueries = kQueriesOf<kD>;
    const VarlenAttention& given = args.given;
    const int rows = tile_rows(given.max_seqlen_q, kQueries);
    const int stages = given.max_seqlen_q > kQueries ? 2 : 1;
    const BlockShape shape = block_shape(given.heads, given.max_seqlen_k, rows, [&](int warps) {
      return (2 * warps * kRowsPerWarp + 2 * stages * rows) * kPitch<kD> * static_cast<int>(sizeof(T));
    });
    const LaunchShape grid = launch_shape(given, shape);
    return has_options(given) ? launch(key_gradients_mma<T, kD, true>, grid, stream, args, shape, stages)
                              : launch(key_gradients_mma<T, kD, false>, grid, stream, args, shape, stages);
  }
};

}  // namespace
}  // namespace attention

cudaError_t varlen_attention_key_gradients_mma(const VarlenAttentionBackward& args, cudaStream_t stream) {
  return attention::for_mma<attention::LaunchKeyGradients>(args.given, args, stream);
}

}  // namespace sentcore
