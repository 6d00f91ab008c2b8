// Forward kernel of embedding_layer_norm; embedding_layer_norm.h says what each tensor is.

#include <limits>

#include "common/row_norm.cuh"
#include "ops/embedding_layer_norm/embedding_layer_norm.h"

namespace sentcore {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

// A warp a token. Dynamic shared memory: the rows. Eight blocks a multiprocessor are asked for: left to itself ptxas
// aims at more on sm_100, and spills.
template <typename T, typename W, int N, bool kCached>
__global__ void __launch_bounds__(kRowWarps* kWarpSize, 8) forward(const EmbeddingLayerNorm args) {
  SENTCORE_DYNAMIC_SHARED(float, shared);
  const std::int64_t token = index_of_row();
  if (token >= args.tokens) return;
  const T* sources[3] = {};
  std::int64_t ids[3] = {};
  bool known = true;
#pragma unroll
  for (int i = 0; i < 3; ++i) {  // all under way before the first is looked at
    if (args.tables[i].table != nullptr) ids[i] = args.tables[i].ids[token];
  }
#pragma unroll
  for (int i = 0; i < 3; ++i) {
    if (args.tables[i].table == nullptr) continue;
    if (ids[i] >= 0 && ids[i] < args.tables[i].rows) {
      sources[i] = static_cast<const T*>(args.tables[i].table) + ids[i] * args.hidden;
    } else {
      known = false;
    }
  }
  const auto add = [&](std::int64_t column, float (&total)[N]) {
#pragma unroll
    for (int j = 0; j < N; ++j) total[j] = known ? 0.0f : kNaN;
#pragma unroll
    for (int i = 0; i < 3; ++i) {
      if (sources[i] == nullptr) continue;
      float values[N];
      load_as_float<Access::reused>(sources[i] + column, values);
#pragma unroll
      for (int j = 0; j < N; ++j) total[j] += values[j];
    }
#pragma unroll
    for (int j = 0; j < N; ++j) total[j] = to_float(from_float<T>(total[j]));
  };
  const auto row = row_of_warp<N, kCached>(shared, args.hidden, add);
  const RowStats stats = row.stats(static_cast<float>(args.eps));
  const std::int64_t begin = token * args.hidden;
  row.each([&](std::int64_t column, const float (&total)[N]) {
    if (args.total != nullptr) store_from_float<Access::streamed>(static_cast<T*>(args.total) + begin + column, total);
    store_normalized(total, stats, column, static_cast<const W*>(args.weight), static_cast<const W*>(args.norm_bias),
                     static_cast<T*>(args.out) + begin);
  });
  if (row.lane == 0 && args.mean != nullptr) {
    static_cast<float*>(args.mean)[token] = stats.mean;
    static_cast<float*>(args.rstd)[token] = stats.rstd;
  }
}

}  // namespace

cudaError_t embedding_layer_norm_cuda(const EmbeddingLayerNorm& args, cudaStream_t stream) {
  return for_dtypes(args.dtype, args.weight_dtype, [&](auto element, auto parameter) {
    using T = typename decltype(element)::type;
    using W = typename decltype(parameter)::type;
    constexpr int N = kPackSize<T>;
    const bool packs =
        args.hidden % N == 0 && packs_fit({args.tables[0].table, args.tables[1].table, args.tables[2].table,
                                           args.weight, args.norm_bias, args.out, args.total});
    return for_row_kind<N>(packs, args.hidden, [&](auto n, auto cached) {
      constexpr int kN = decltype(n)::value;
      return launch(forward<T, W, kN, decltype(cached)::value>, shape_for_rows<kN>(args.tokens, args.hidden), stream,
                    args);
    });
  });
}

}  // namespace sentcore
