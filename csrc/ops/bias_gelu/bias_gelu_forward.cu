// Forward kernel of bias_gelu; bias_gelu.h says what each tensor is.

#include "common/activations.cuh"
#include "common/dispatch.cuh"
#include "ops/bias_gelu/bias_gelu.h"

namespace sentcore {
namespace {

constexpr int kThreads = 256;

// A thread takes N columns of a row: 16 bytes of T, or one.
template <typename T, typename W, int N>
__global__ void __launch_bounds__(kThreads) forward(const BiasGeluForward args) {
  const std::int64_t first = (static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x) * N;
  if (first >= args.rows * args.width) return;
  float values[N], bias[N] = {};
  load_as_float<Access::streamed>(static_cast<const T*>(args.x) + first, values);
  if (args.bias != nullptr) {
    load_as_float<Access::reused>(static_cast<const W*>(args.bias) + first % args.width, bias);
  }
#pragma unroll
  for (int i = 0; i < N; ++i) {
    const float total = values[i] + bias[i];
    values[i] = args.tanh ? gelu_tanh(total) : gelu_erf(total);
  }
  store_from_float<Access::reused>(static_cast<T*>(args.out) + first, values);
}

}  // namespace

cudaError_t bias_gelu_forward_cuda(const BiasGeluForward& args, cudaStream_t stream) {
  return for_dtypes(args.dtype, args.bias_dtype, [&](auto element, auto parameter) {
    using T = typename decltype(element)::type;
    using W = typename decltype(parameter)::type;
    constexpr int N = kPackSize<T>;
    const bool packs = args.width % N == 0 && packs_fit({args.x, args.bias, args.out});
    const std::int64_t items = args.rows * args.width / (packs ? N : 1);
    const LaunchShape shape{dim3(static_cast<unsigned>(ceil_div<std::int64_t>(items, kThreads))), dim3(kThreads)};
    return packs ? launch(forward<T, W, N>, shape, stream, args) : launch(forward<T, W, 1>, shape, stream, args);
  });
}

}  // namespace sentcore
