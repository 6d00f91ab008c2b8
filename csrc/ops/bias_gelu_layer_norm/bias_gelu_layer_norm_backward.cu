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

// A warp a row. Dynamic shared memory: the rows.
template <typename T, typename W, int N, bool kCached>
__global__ void __launch_bounds__(kRowWarps* kWarpSize) find_stats(const BiasGeluLayerNormBackward args) {
  SENTCORE_DYNAMIC_SHARED(float, shared);
  const std::int64_t r = index_of_row();
  if (r >= args.rows) return;
  const T* const x = static_cast<const T*>(args.x) + r * args.hidden;
  const T* const grad_out = static_cast<const T*>(args.grad_out) + r * args.hidden;
  const auto activate = [&](std::int64_t column, float (&values)[N]) {
    float bias[N] = {};
    load_as_float<Access::reused>(x + column, values);
    if (args.bias != nullptr) load_as_float<Access::reused>(static_cast<const W*>(args.bias) + column, bias);
#pragma unroll
    for (int i = 0; i < N; ++i) values[i] = gelu_erf(values[i] + bias[i]);
  };
  const auto row = row_of_warp<N, kCached>(shared, args.hidden, activate);
  const RowStats stats = row.stats(static_cast<float>(args.eps));
  float plain = 0.0f, times = 0.0f;
  row.each([&](std::int64_t column, const float (&values)[N]) {
    float grad[N], weight[N];
    load_as_float<Access::reused>(grad_out + column, grad);
    load_as_float<Access::reused>(static_cast<const W*>(args.weight) + column, weight);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const float scaled = grad[i] * weight[i];
      plain += scaled;
      times += scaled * (values[i] - stats.mean) * stats.rstd;
    }
  });
  plain = warp_sum(plain) / static_cast<float>(args.hidden);
  times = warp_sum(times) / static_cast<float>(args.hidden);
  if (row.lane != 0) return;
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
    float* const slice = static_cast<float*>(args.partial) +
                         (static_cast<std::int64_t>(sum) * gridDim.y + blockIdx.y) * args.hidden + column;
#pragma unroll
    for (int i = 0; i < N; ++i) slice[i] = sums[sum][i];
  }
}

}  // namespace

std::int64_t bias_gelu_layer_norm_groups_cuda(std::int64_t rows) { return sum_groups(rows); }

cudaError_t bias_gelu_layer_norm_backward_cuda(const BiasGeluLayerNormBackward& args, cudaStream_t stream) {
  const cudaError_t status = for_dtypes(args.dtype, args.weight_dtype, [&](auto element, auto parameter) {
    using T = typename decltype(element)::type;
    using W = typename decltype(parameter)::type;
    constexpr int N = kPackSize<T>;
    const bool packs = args.hidden % N == 0 && packs_fit({args.grad_out, args.x, args.bias, args.weight, args.grad_x});
    const std::int64_t items = args.hidden / (packs ? N : 1);
    const LaunchShape columns{
        dim3(static_cast<unsigned>(ceil_div<std::int64_t>(items, kThreads)), static_cast<unsigned>(args.groups)),
        dim3(kThreads)};
    const cudaError_t first = for_row_kind<N>(packs, args.hidden, [&](auto n, auto cached) {
      constexpr int kN = decltype(n)::value;
      return launch(find_stats<T, W, kN, decltype(cached)::value>, shape_for_rows<kN>(args.rows, args.hidden), stream,
                    args);
    });
    if (first != cudaSuccess) return first;
    return packs ? launch(go_down<T, W, N>, columns, stream, args) : launch(go_down<T, W, 1>, columns, stream, args);
  });
  if (status != cudaSuccess) return status;
  const GroupSums sums{args.hidden,
                       args.groups,
                       static_cast<const float*>(args.partial),
                       {args.grad_bias, args.grad_weight, args.grad_norm_bias}};
  return add_groups_cuda(args.weight_dtype, sums, stream);
}

}  // namespace sentcore
