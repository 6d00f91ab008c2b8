// Forward kernel of embedding_layer_norm; embedding_layer_norm.h says what each tensor is.

#include <limits>

#include "common/row_norm.cuh"
#include "ops/embedding_layer_norm/embedding_layer_norm.h"

namespace sentcore {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

// A warp a token. Dynamic shared memory: float [warps, H].
template <typename T, typename W, int N>
__global__ void __launch_bounds__(4 * kWarpSize) forward(const EmbeddingLayerNorm args) {
  SENTCORE_DYNAMIC_SHARED(float, rows);
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize, warp = static_cast<int>(threadIdx.x) / kWarpSize;
  const std::int64_t token = static_cast<std::int64_t>(blockIdx.x) * (blockDim.x / kWarpSize) + warp;
  if (token >= args.tokens) return;  // the whole warp
  float* const row = rows + warp * args.hidden;
  const T* sources[3];
  bool known = true;
#pragma unroll
  for (int i = 0; i < 3; ++i) {
    sources[i] = nullptr;
    if (args.tables[i].table == nullptr) continue;
    const std::int64_t id = args.tables[i].ids[token];
    known = known && id >= 0 && id < args.tables[i].rows;
    sources[i] = static_cast<const T*>(args.tables[i].table) + id * args.hidden;
  }
  for (std::int64_t c = lane * N; c < args.hidden; c += kWarpSize * N) {
    float total[N] = {};
#pragma unroll
    for (int i = 0; i < 3; ++i) {
      if (!known || sources[i] == nullptr) continue;
      float values[N];
      load_as_float<Access::reused>(sources[i] + c, values);
#pragma unroll
      for (int j = 0; j < N; ++j) total[j] += values[j];
    }
#pragma unroll
    for (int j = 0; j < N; ++j) {
      total[j] = known ? to_float(from_float<T>(total[j])) : kNaN;
      row[c + j] = total[j];
    }
    if (args.total != nullptr) {
      store_from_float<Access::streamed>(static_cast<T*>(args.total) + token * args.hidden + c, total);
    }
  }
  const RowStats stats = stats_of_row<N>(row, args.hidden, static_cast<float>(args.eps), lane);
  store_normalized<N>(row, stats, args.hidden, static_cast<const W*>(args.weight),
                      static_cast<const W*>(args.norm_bias), static_cast<T*>(args.out) + token * args.hidden, lane);
  if (lane == 0 && args.mean != nullptr) {
    args.mean[token] = stats.mean;
    args.rstd[token] = stats.rstd;
  }
}

}  // namespace

cudaError_t embedding_layer_norm_cuda(const EmbeddingLayerNorm& args, cudaStream_t stream) {
  return for_dtypes(args.dtype, args.weight_dtype, [&](auto element, auto parameter) {
    using T = typename decltype(element)::type;
    using W = typename decltype(parameter)::type;
    constexpr int N = kPackSize<T>;
    const LaunchShape shape = shape_for_rows(args.tokens, args.hidden);
    const bool packs =
        args.hidden % N == 0 && packs_fit({args.tables[0].table, args.tables[1].table, args.tables[2].table,
                                           args.weight, args.norm_bias, args.out, args.total});
    return packs ? launch(forward<T, W, N>, shape, stream, args) : launch(forward<T, W, 1>, shape, stream, args);
  });
}

}  // namespace sentcore
