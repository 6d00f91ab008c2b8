// Backward kernels of bias_gelu_layer_norm; bias_gelu_layer_norm.h says what each tensor is. With total = x + bias,
// n = (gelu(total) - mean) * rstd and g = grad_out * weight
//   grad_x = rstd * (g - mean(g) - n * mean(g * n)) * gelu'(total)
// and over the rows grad_bias = sum(grad_x), grad_weight = sum(grad_out * n), grad_norm_bias = sum(grad_out).
//
// Two passes over [T, H]: the first finds each row's four numbers, the second goes down the columns, where a thread
// keeps the sums of its columns in registers.

#include "common/activations.cuh"
#include "common/row_norm.cuh"
#include "common/sums/sums.h"
#include "ops/bias_gelu_layer_norm/bias_gelu_layer_norm.h"

namespace sentcore {
namespace {

constexpr int kThreads = 128;

// A warp a row. Dynamic shared memory: float [warps, H].
template <typename T, typename W, int N>
__global__ void __launch_bounds__(4 * kWarpSize) find_stats(const BiasGeluLayerNormBackward args) {
  SENTCORE_DYNAMIC_SHARED(float, rows);
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize, warp = static_cast<int>(threadIdx.x) / kWarpSize;
  const std::int64_t r = static_cast<std::int64_t>(blockIdx.x) * (blockDim.x / kWarpSize) + warp;
  if (r >= args.rows) return;  // the whole warp
  float* const row = rows + warp * args.hidden;
  const T* const x = static_cast<const T*>(args.x) + r * args.hidden;
  const T* const grad_out = static_cast<const T*>(args.grad_out) + r * args.hidden;
  for (std::int64_t c = lane * N; c < args.hidden; c += kWarpSize * N) {
    float values[N], bias[N] = {};
    load_as_float<Access::reused>(x + c, values);
    if (args.bias != nullptr) load_as_float<Access::reused>(static_cast<const W*>(args.bias) + c, bias);
#pragma unroll
    for (int i = 0; i < N; ++i) row[c + i] = gelu_erf(values[i] + bias[i]);
  }
  const RowStats stats = stats_of_row<N>(row, args.hidden, static_cast<float>(args.eps), lane);
  float plain = 0.0f, times = 0.0f;
  for (std::int64_t c = lane * N; c < args.hidden; c += kWarpSize * N) {
    float grad[N], weight[N];
    load_as_float<Access::reused>(grad_out + c, grad);
    load_as_float<Access::reused>(static_cast<const W*>(args.weight) + c, weight);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const float scaled = grad[i] * weight[i];
      plain += scaled;
      times += scaled * (row[c + i] - stats.mean) * stats.rstd;
    }
  }
  plain = warp_sum(plain) / static_cast<float>(args.hidden);
  times = warp_sum(times) / static_cast<float>(args.hidden);
  if (lane != 0) return;
  float* const target = args.stats + 4 * r;
  target[0] = stats.mean;
  target[1] = stats.rstd;
  target[2] = plain;
  target[3] = times;
}

// A thread takes N columns of the rows of its group. Grid: columns, groups.
template <typename T, typename W, int N>
__global__ void __launch_bounds__(kThreads) go_down(const BiasGeluLayerNormBackward args) {
  const std::int64_t column = (static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x) * N;
  if (column >= args.hidden) return;
  float bias[N] = {}, weight[N], sums[3][N] = {};
  if (args.bias != nullptr) load_as_float<Access::reused>(static_cast<const W*>(args.bias) + column, bias);
  load_as_float<Access::reused>(static_cast<const W*>(args.weight) + column, weight);
  for (std::int64_t row = blockIdx.y; row < args.rows; row += gridDim.y) {
    const std::int64_t at = row * args.hidden + column;
    const float* const stats = args.stats + 4 * row;
    const float mean = stats[0], rstd = stats[1], plain = stats[2], times = stats[3];
    float grad[N], values[N];
    load_as_float<Access::streamed>(static_cast<const T*>(args.grad_out) + at, grad);
    load_as_float<Access::streamed>(static_cast<const T*>(args.x) + at, values);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const float total = values[i] + bias[i], normalized = (gelu_erf(total) - mean) * rstd;
      const float grad_x = rstd * (grad[i] * weight[i] - plain - normalized * times) * gelu_erf_grad(total);
      sums[0][i] += grad_x;
      sums[1][i] += grad[i] * normalized;
      sums[2][i] += grad[i];
      values[i] = grad_x;
    }
    store_from_float<Access::reused>(static_cast<T*>(args.grad_x) + at, values);
  }
#pragma unroll
  for (int sum = 0; sum < 3; ++sum) {
    float* const slice =
        args.partial + (static_cast<std::int64_t>(sum) * gridDim.y + blockIdx.y) * args.hidden + column;
#pragma unroll
    for (int i = 0; i < N; ++i) slice[i] = sums[sum][i];
  }
}

}  // namespace

cudaError_t bias_gelu_layer_norm_backward_cuda(const BiasGeluLayerNormBackward& args, cudaStream_t stream) {
  const std::int64_t groups = sum_groups(args.rows);
  cudaError_t status = for_dtypes(args.dtype, args.weight_dtype, [&](auto element, auto parameter) {
    using T = typename decltype(element)::type;
    using W = typename decltype(parameter)::type;
    constexpr int N = kPackSize<T>;
    const LaunchShape rows = shape_for_rows(args.rows, args.hidden);
    const bool packs = args.hidden % N == 0 && packs_fit({args.grad_out, args.x, args.bias, args.weight, args.grad_x});
    const std::int64_t items = args.hidden / (packs ? N : 1);
    const LaunchShape columns{
        dim3(static_cast<unsigned>(ceil_div<std::int64_t>(items, kThreads)), static_cast<unsigned>(groups)),
        dim3(kThreads)};
    const cudaError_t first =
        packs ? launch(find_stats<T, W, N>, rows, stream, args) : launch(find_stats<T, W, 1>, rows, stream, args);
    if (first != cudaSuccess) return first;
    return packs ? launch(go_down<T, W, N>, columns, stream, args) : launch(go_down<T, W, 1>, columns, stream, args);
  });
  void* const outputs[3] = {args.grad_bias, args.grad_weight, args.grad_norm_bias};
  for (int sum = 0; sum < 3; ++sum) {
    if (status != cudaSuccess) return status;
    if (outputs[sum] == nullptr) continue;
    status = add_slices_cuda(args.weight_dtype, args.partial + sum * groups * args.hidden, args.hidden, groups,
                             outputs[sum], stream);
  }
  return status;
}

}  // namespace sentcore
