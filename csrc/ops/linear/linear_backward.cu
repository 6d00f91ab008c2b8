// The backward of linear's activation; linear.h says what each tensor is.

#include "common/dtypes.cuh"
#include "ops/linear/linear.h"

namespace sentcore {
namespace {

constexpr int kThreads = 256;

// A thread takes N columns of out: 16 bytes, or one.
template <typename T, int N>
__global__ void __launch_bounds__(kThreads) backward(const LinearBackward args) {
  const bool gated = is_gated(args.activation);
  const std::int64_t width = gated ? args.columns / 2 : args.columns;
  const std::int64_t first = (static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x) * N;
  if (first >= args.tokens * width) return;
  const std::int64_t row = first / width, column = first % width, at = row * args.columns + column;
  const T* const pre = static_cast<const T*>(args.pre) + at;
  T* const grad_pre = static_cast<T*>(args.grad_pre) + at;
  float grad[N], value[N], result[N];
  load_as_float<Access::streamed>(static_cast<const T*>(args.grad_out) + first, grad);
  load_as_float<Access::streamed>(pre, value);
  if (!gated) {
#pragma unroll
    for (int i = 0; i < N; ++i) result[i] = grad[i] * activate_grad(args.activation, value[i]);
    store_from_float<Access::reused>(grad_pre, result);
    return;
  }
  float other[N], grad_other[N];
  load_as_float<Access::streamed>(pre + width, other);
#pragma unroll
  for (int i = 0; i < N; ++i) {
    result[i] = grad[i] * other[i] * activate_grad(args.activation, value[i]);
    grad_other[i] = grad[i] * activate(args.activation, value[i]);
  }
  store_from_float<Access::reused>(grad_pre, result);
  store_from_float<Access::reused>(grad_pre + width, grad_other);
}

template <typename T>
cudaError_t start(const LinearBackward& args, cudaStream_t stream) {
  constexpr int N = kPackSize<T>;
  const std::int64_t width = is_gated(args.activation) ? args.columns / 2 : args.columns;
  const auto aligned = [](const void* p) { return reinterpret_cast<std::uintptr_t>(p) % 16 == 0; };
  const bool packs = width % N == 0 && aligned(args.grad_out) && aligned(args.pre) && aligned(args.grad_pre);
  const std::int64_t items = args.tokens * width / (packs ? N : 1);
  const LaunchShape shape{dim3(static_cast<unsigned>(ceil_div<std::int64_t>(items, kThreads))), dim3(kThreads)};
  return packs ? launch(backward<T, N>, shape, stream, args) : launch(backward<T, 1>, shape, stream, args);
}

}  // namespace

cudaError_t linear_backward_cuda(const LinearBackward& args, cudaStream_t stream) {
  switch (args.dtype) {
    case Dtype::float32:
      return start<float>(args, stream);
    case Dtype::bfloat16:
      return start<__nv_bfloat16>(args, stream);
    case Dtype::float16:
      return start<__half>(args, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace sentcore
