// The backward of varlen_attention out of its parts, and the sum over the groups of bias' gradient.

#include "common/dtypes.cuh"
#include "ops/varlen_attention/dispatch.cuh"
#include "ops/varlen_attention/varlen_attention.h"

namespace sentcore {
namespace {

constexpr int kAddThreads = 256;
constexpr std::int64_t kWantedBlocks = 512;  // of bias' gradient: some for each of 132 multiprocessors
constexpr std::int64_t kTileElements = 64 * 32;

// partial [G, elements] float32 -> grad [elements]: each element's groups in order.
template <typename T>
__global__ void __launch_bounds__(kAddThreads)
    add_groups(const float* partial, T* grad, const int groups, const std::int64_t elements) {
  const std::int64_t index = static_cast<std::int64_t>(blockIdx.x) * kAddThreads + threadIdx.x;
  if (index >= elements) return;
  float sum = 0.0f;
  for (int group = 0; group < groups; ++group) sum += partial[group * elements + index];
  grad[index] = from_float<T>(sum);
}

cudaError_t add_all_groups(const VarlenAttentionBackward& args, cudaStream_t stream) {
  const std::int64_t elements = static_cast<std::int64_t>(args.given.heads) * args.bias_rows * args.bias_columns;
  const LaunchShape shape{dim3(attention::grid_x(ceil_div<std::int64_t>(elements, kAddThreads))), dim3(kAddThreads)};
  if (args.given.bias_is_float32) {
    return launch(add_groups<float>, shape, stream, args.partial, static_cast<float*>(args.grad_bias), args.bias_groups,
                  elements);
  }
  if (args.given.dtype == Dtype::bfloat16) {
    return launch(add_groups<__nv_bfloat16>, shape, stream, args.partial, static_cast<__nv_bfloat16*>(args.grad_bias),
                  args.bias_groups, elements);
  }
  return launch(add_groups<__half>, shape, stream, args.partial, static_cast<__half*>(args.grad_bias), args.bias_groups,
                elements);
}

}  // namespace

// As many groups as keep the GPU busy where bias itself has few tiles; the sums depend on nothing but these four.
std::int64_t varlen_attention_bias_groups_cuda(std::int64_t sentences, std::int64_t heads, std::int64_t bias_rows,
                                               std::int64_t bias_columns) {
  const std::int64_t tiles = heads * ceil_div<std::int64_t>(bias_rows * bias_columns, kTileElements);
  const std::int64_t groups = tiles == 0 ? 1 : kWantedBlocks / tiles;
  return groups < 1 || sentences < 1 ? 1 : groups < sentences ? groups : sentences;
}

cudaError_t varlen_attention_backward_cuda(const VarlenAttentionBackward& args, cudaStream_t stream) {
  const bool mma = attention::uses_mma(args.given);
  cudaError_t status =
      mma ? varlen_attention_query_gradients_mma(args, stream) : varlen_attention_query_gradients_fma(args, stream);
  if (status != cudaSuccess) return status;
  status = mma ? varlen_attention_key_gradients_mma(args, stream) : varlen_attention_key_gradients_fma(args, stream);
  if (status != cudaSuccess || args.grad_bias == nullptr) return status;
  status = mma ? varlen_attention_bias_gradient_mma(args, stream) : varlen_attention_bias_gradient_fma(args, stream);
  if (status != cudaSuccess || args.partial == nullptr) return status;
  return add_all_groups(args, stream);
}

}  // namespace sentcore
