// Forward kernel of bias_gelu_layer_norm; bias_gelu_layer_norm.h says what each tensor is.

#include "common/activations.cuh"
#include "common/row_norm.cuh"
#include "ops/bias_gelu_layer_norm/bias_gelu_layer_norm.h"

namespace sentcore {
namespace {

// A warp a row. Dynamic shared memory: float [warps, H].
template <typename T, typename W, int N>
__global__ void __launch_bounds__(4 * kWarpSize) forward(const BiasGeluLayerNormForward args) {
  SENTCORE_DYNAMIC_SHARED(float, rows);
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize, warp = static_cast<int>(threadIdx.x) / kWarpSize;
  const std::int64_t r = static_cast<std::int64_t>(blockIdx.x) * (blockDim.x / kWarpSize) + warp;
  if (r >= args.rows) return;  // the whole warp
  float* const row = rows + warp * args.hidden;
  const T* const x = static_cast<const T*>(args.x) + r * args.hidden;
  for (std::int64_t c = lane * N; c < args.hidden; c += kWarpSize * N) {
    float values[N], bias[N] = {};
    load_as_float<Access::streamed>(x + c, values);
    if (args.bias != nullptr) load_as_float<Access::reused>(static_cast<const W*>(args.bias) + c, bias);
#pragma unroll
    for (int i = 0; i < N; ++i) row[c + i] = gelu_erf(values[i] + bias[i]);
  }
  const RowStats stats = stats_of_row<N>(row, args.hidden, static_cast<float>(args.eps), lane);
  store_normalized<N>(row, stats, args.hidden, static_cast<const W*>(args.weight),
                      static_cast<const W*>(args.norm_bias), static_cast<T*>(args.out) + r * args.hidden, lane);
}

}  // namespace

cudaError_t bias_gelu_layer_norm_forward_cuda(const BiasGeluLayerNormForward& args, cudaStream_t stream) {
  return for_dtypes(args.dtype, args.weight_dtype, [&](auto element, auto parameter) {
    using T = typename decltype(element)::type;
    using W = typename decltype(parameter)::type;
    constexpr int N = kPackSize<T>;
    const LaunchShape shape = shape_for_rows(args.rows, args.hidden);
    const bool packs = args.hidden % N == 0 && packs_fit({args.x, args.bias, args.weight, args.norm_bias, args.out});
    return packs ? launch(forward<T, W, N>, shape, stream, args) : launch(forward<T, W, 1>, shape, stream, args);
  });
}

}  // namespace sentcore
