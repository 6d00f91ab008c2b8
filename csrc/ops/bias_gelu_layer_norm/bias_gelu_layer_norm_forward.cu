// Forward kernel of bias_gelu_layer_norm; bias_gelu_layer_norm.h says what each tensor is.

#include "common/activations.cuh"
#include "common/row_norm.cuh"
#include "ops/bias_gelu_layer_norm/bias_gelu_layer_norm.h"

namespace sentcore {
namespace {

// A warp a row. Dynamic shared memory: the rows.
template <typename T, typename W, int N, bool kCached>
__global__ void __launch_bounds__(kRowWarps* kWarpSize) forward(const BiasGeluLayerNormForward args) {
  SENTCORE_DYNAMIC_SHARED(float, shared);
  const std::int64_t r = index_of_row();
  if (r >= args.rows) return;
  const T* const x = static_cast<const T*>(args.x) + r * args.hidden;
  T* const out = static_cast<T*>(args.out) + r * args.hidden;
  const auto activate = [&](std::int64_t column, float (&values)[N]) {
    float bias[N] = {};
    load_as_float<Access::streamed>(x + column, values);
    if (args.bias != nullptr) load_as_float<Access::reused>(static_cast<const W*>(args.bias) + column, bias);
#pragma unroll
    for (int i = 0; i < N; ++i) values[i] = gelu_erf(values[i] + bias[i]);
  };
  const auto row = row_of_warp<N, kCached>(shared, args.hidden, activate);
  const RowStats stats = row.stats(static_cast<float>(args.eps));
  row.each([&](std::int64_t column, const float (&values)[N]) {
    store_normalized(values, stats, column, static_cast<const W*>(args.weight), static_cast<const W*>(args.norm_bias),
                     out);
  });
}

}  // namespace

cudaError_t bias_gelu_layer_norm_forward_cuda(const BiasGeluLayerNormForward& args, cudaStream_t stream) {
  return for_dtypes(args.dtype, args.weight_dtype, [&](auto element, auto parameter) {
    using T = typename decltype(element)::type;
    using W = typename decltype(parameter)::type;
    constexpr int N = kPackSize<T>;
    const bool packs = args.hidden % N == 0 && packs_fit({args.x, args.bias, args.weight, args.norm_bias, args.out});
    return for_row_kind<N>(packs, args.hidden, [&](auto n, auto cached) {
      constexpr int kN = decltype(n)::value;
      return launch(forward<T, W, kN, decltype(cached)::value>, shape_for_rows<kN>(args.rows, args.hidden), stream,
                    args);
    });
  });
}

}  // namespace sentcore
