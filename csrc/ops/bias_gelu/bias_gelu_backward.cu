// Backward kernel of bias_gelu; bias_gelu.h says what each tensor is. grad_x = grad_out * gelu'(x + bias); grad_bias is
// its sum over the rows.

#include "common/activations.cuh"
#include "common/dispatch.cuh"
#include "common/sums/sums.h"
#include "ops/bias_gelu/bias_gelu.h"

namespace sentcore {
namespace {

constexpr int kThreads = 256;

// A thread takes N columns of the rows of its group. Grid: columns, groups.
template <typename T, typename W, int N>
__global__ void __launch_bounds__(kThreads) backward(const BiasGeluBackward args) {
  const std::int64_t column = (static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x) * N;
  if (column >= args.width) return;
  float bias[N] = {}, sums[N] = {};
  if (args.bias != nullptr) load_as_float<Access::reused>(static_cast<const W*>(args.bias) + column, bias);
  for (std::int64_t row = blockIdx.y; row < args.rows; row += gridDim.y) {
    const std::int64_t at = row * args.width + column;
    float grad[N], values[N];
    load_as_float<Access::streamed>(static_cast<const T*>(args.grad_out) + at, grad);
    load_as_float<Access::streamed>(static_cast<const T*>(args.x) + at, values);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const float total = values[i] + bias[i];
      grad[i] *= args.tanh ? gelu_tanh_grad(total) : gelu_erf_grad(total);
      sums[i] += grad[i];
    }
    store_from_float<Access::reused>(static_cast<T*>(args.grad_x) + at, grad);
  }
  if (args.partial == nullptr) return;
#pragma unroll
  for (int i = 0; i < N; ++i) static_cast<float*>(args.partial)[blockIdx.y * args.width + column + i] = sums[i];
}

}  // namespace

std::int64_t bias_gelu_groups_cuda(std::int64_t rows) { return sum_groups(rows); }

cudaError_t bias_gelu_backward_cuda(const BiasGeluBackward& args, cudaStream_t stream) {
  const cudaError_t status = for_dtypes(args.dtype, args.bias_dtype, [&](auto element, auto parameter) {
    using T = typename decltype(element)::type;
    using W = typename decltype(parameter)::type;
    constexpr int N = kPackSize<T>;
    const bool packs = args.width % N == 0 && packs_fit({args.grad_out, args.x, args.bias, args.grad_x});
    const std::int64_t items = args.width / (packs ? N : 1);
    const LaunchShape shape{
        dim3(static_cast<unsigned>(ceil_div<std::int64_t>(items, kThreads)), static_cast<unsigned>(args.groups)),
        dim3(kThreads)};
    return packs ? launch(backward<T, W, N>, shape, stream, args) : launch(backward<T, W, 1>, shape, stream, args);
  });
  if (status != cudaSuccess || args.grad_bias == nullptr) return status;
  return add_groups_cuda(
      args.bias_dtype,
      {args.width, args.groups, static_cast<const float*>(args.partial), {args.grad_bias, nullptr, nullptr}}, stream);
}

}  // namespace sentcore
