// Forward kernel of bias_gelu; bias_gelu.h says what each tensor is.

#include "common/activations.cuh"
#include "common/dispatch.cuh"
#include "ops/bias_gelu/bias_gelu.h"

namespace sentcore {
namespace {

constexpr int kThreads = 64;  // divides the packs of most widths, so that few threads have no columns
constexpr int kRows = 4;      // of a thread at a time: their loads are under way together
constexpr std::int64_t kMostGroups = 1024;

// A thread takes N columns, 16 bytes of T or one, and goes down the rows with their bias in registers: there is no
// division to find the column. Grid: columns, groups of rows.
template <typename T, typename W, int N>
__global__ void __launch_bounds__(kThreads) forward(const BiasGeluForward args) {
  const std::int64_t column = (static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x) * N;
  if (column >= args.width) return;
  float bias[N] = {};
  if (args.bias != nullptr) load_as_float<Access::reused>(static_cast<const W*>(args.bias) + column, bias);
  for (std::int64_t row = static_cast<std::int64_t>(blockIdx.y) * kRows; row < args.rows; row += gridDim.y * kRows) {
    const std::int64_t at = row * args.width + column;
    const T* const x = static_cast<const T*>(args.x) + at;
    T* const out = static_cast<T*>(args.out) + at;
    const int rows = args.rows - row < kRows ? static_cast<int>(args.rows - row) : kRows;
    Elements<T, N> loaded[kRows];
#pragma unroll
    for (int r = 0; r < kRows; ++r) loaded[r] = load_if<N>(r < rows, x + r * args.width);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      if (r >= rows) continue;
      float values[N];
      convert(loaded[r], values);
#pragma unroll
      for (int i = 0; i < N; ++i) {
        const float total = values[i] + bias[i];
        values[i] = args.tanh ? gelu_tanh(total) : gelu_erf(total);
      }
      store_from_float<Access::reused>(out + r * args.width, values);
    }
  }
}

}  // namespace

cudaError_t bias_gelu_forward_cuda(const BiasGeluForward& args, cudaStream_t stream) {
  return for_dtypes(args.dtype, args.bias_dtype, [&](auto element, auto parameter) {
    using T = typename decltype(element)::type;
    using W = typename decltype(parameter)::type;
    constexpr int N = kPackSize<T>;
    const bool packs = args.width % N == 0 && packs_fit({args.x, args.bias, args.out});
    const std::int64_t items = args.width / (packs ? N : 1), groups = ceil_div<std::int64_t>(args.rows, kRows);
    const LaunchShape shape{dim3(static_cast<unsigned>(ceil_div<std::int64_t>(items, kThreads)),
                                 static_cast<unsigned>(groups < kMostGroups ? groups : kMostGroups)),
                            dim3(kThreads)};
    return packs ? launch(forward<T, W, N>, shape, stream, args) : launch(forward<T, W, 1>, shape, stream, args);
  });
}

}  // namespace sentcore
