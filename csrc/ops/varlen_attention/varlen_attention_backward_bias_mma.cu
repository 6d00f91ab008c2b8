// The gradient of bias on tensor cores; varlen_attention_backward_query_mma.cu has the formulas, and leaves delta.
//
// A block has 64 queries and 32 keys of one head, and adds up the gradients of their scores over the sentences of its
// group, in order. add_groups in varlen_attention_backward.cu then adds the groups.

#include "ops/varlen_attention/bias_gradient.cuh"
#include "ops/varlen_attention/dispatch.cuh"
#include "ops/varlen_attention/mma_scores.cuh"

namespace sentcore {
namespace attention {
namespace {

constexpr int kQueries = kWarps * kRowsPerWarp;
constexpr int kKeys = 32;
constexpr int kChunks = kKeys / 16;

template <int kD>
constexpr int kElements = 2 * (kQueries + kKeys) * kPitch<kD>;  // of shared memory

template <typename T, int kD>
__global__ void __launch_bounds__(kWarps* kWarpSize)
    bias_gradient_mma(const VarlenAttentionBackward args, const int column_tiles) {
  SENTCORE_DYNAMIC_SHARED(T, shared);
  const VarlenAttention& given = args.given;
  const int head = static_cast<int>(blockIdx.y), lane = lane_of_thread();
  const int block_row = static_cast<int>(blockIdx.x) / column_tiles * kQueries;
  const int first_column = static_cast<int>(blockIdx.x) % column_tiles * kKeys;
  const int warp_row = static_cast<int>(threadIdx.x) / kWarpSize * kRowsPerWarp;
  const int first_row = block_row + warp_row;
  T* const queries = shared + warp_row * kPitch<kD>;
  T* const grads = queries + kQueries * kPitch<kD>;
  T* const keys = shared + 2 * kQueries * kPitch<kD>;
  T* const values = keys + kKeys * kPitch<kD>;
  const std::int64_t out_stride = static_cast<std::int64_t>(given.heads) * given.size;

  float sums[2 * kChunks][4] = {};
  const SentenceGroup group(args);
  for (std::int64_t index = group.begin; index < group.end; ++index) {
    const Sentence sentence(given, index);
    if (!meets(sentence, block_row, kQueries, first_column, kKeys)) continue;  // the whole block
    const int columns = smaller(sentence.length_k - first_column, kKeys);
    const int rows = sentence.length_q - first_row;
    const bool works = rows > 0;
    const std::int64_t token = static_cast<std::int64_t>(sentence.first_q) + first_row;
    const std::int64_t start =
        (static_cast<std::int64_t>(sentence.first_k) + first_column) * given.kv_stride + head * given.size;
    copy_rows<kD>(keys, static_cast<const T*>(given.k) + start, given.kv_stride, columns, round_up(columns, 16),
                  given.size, static_cast<int>(threadIdx.x), kWarps * kWarpSize);
    copy_rows<kD>(values, static_cast<const T*>(given.v) + start, given.kv_stride, columns, round_up(columns, 16),
                  given.size, static_cast<int>(threadIdx.x), kWarps * kWarpSize);
    RowStats stats;
    if (works) {
      copy_rows<kD>(queries, static_cast<const T*>(given.q) + token * given.q_stride + head * given.size,
                    given.q_stride, rows, kRowsPerWarp, given.size, lane, kWarpSize);
      copy_rows<kD>(grads, static_cast<const T*>(args.grad_out) + token * out_stride + head * given.size, out_stride,
                    rows, kRowsPerWarp, given.size, lane, kWarpSize);
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int row = fragment_row(2 * half);
        const std::int64_t place = (token + row) * given.heads + head;
        stats.lse[half] = row < rows ? in_powers_of_two(args.lse[place]) : kInfinity;
        stats.delta[half] = row < rows ? args.delta[place] : 0.0f;
      }
    }
    ptx::copy_async_commit();
    ptx::copy_async_wait<0>();
    __syncthreads();  // everything is there
    if (works) {
      const Terms<T> terms(given, sentence, head);
      float gradients[2 * kChunks][4];
      score_gradients<kD, kChunks, true>(terms, first_row, first_column, queries, grads, keys, values,
                                         (columns + 15) / 16, stats, gradients);
#pragma unroll
      for (int n = 0; n < 2 * kChunks; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) sums[n][i] += gradients[n][i];
      }
    }
    __syncthreads();  // and has been read
  }

#pragma unroll
  for (int n = 0; n < 2 * kChunks; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      store_sum<T>(args, head, first_row + fragment_row(i), first_column + fragment_column(n, i), sums[n][i]);
    }
  }
}

struct LaunchBiasGradient {
  template <typename T, int kD>
  static cudaError_t run(const VarlenAttentionBackward& args, cudaStream_t stream) {
    const int column_tiles = ceil_div(args.bias_columns, kKeys);
    const std::int64_t tiles = ceil_div(args.bias_rows, kQueries) * static_cast<std::int64_t>(column_tiles);
    const LaunchShape shape{
        dim3(grid_x(tiles), static_cast<unsigned>(args.given.heads), static_cast<unsigned>(args.bias_groups)),
        dim3(kWarps * kWarpSize), kElements<kD> * sizeof(T)};
    return launch(bias_gradient_mma<T, kD>, shape, stream, args, column_tiles);
  }
};

}  // namespace
}  // namespace attention

cudaError_t varlen_attention_bias_gradient_mma(const VarlenAttentionBackward& args, cudaStream_t stream) {
  return attention::for_mma<attention::LaunchBiasGradient>(args.given, args, stream);
}

}  // namespace sentcore
