// Which kernel computes a product, the sum of its slices, and column sums.

#include "common/dtypes.cuh"
#include "common/gemm/gemm.h"
#include "common/gemm/kernels.h"
#include "common/reduce.cuh"

namespace sentcore {
namespace {

constexpr int kThreads = 256;
constexpr std::int64_t kTile = 128;
constexpr std::int64_t kWantedBlocks =
    264;  // two on each of 132 multiprocessors; a constant, so that sums repeat anywhere
constexpr std::int64_t kLeastDepth = 256;  // of a slice
constexpr std::int64_t kRowsOfGroup = 64;  // column sums
constexpr std::int64_t kMostGroups = 264;

// out [count] T = the sum over slices of partial [slices, count], in order.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    add_slices(const float* partial, std::int64_t count, std::int64_t slices, T* out) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= count) return;
  float sum = 0.0f;
#pragma unroll 4
  for (std::int64_t slice = 0; slice < slices; ++slice) sum += partial[slice * count + i];
  out[i] = from_float<T>(sum);
}

template <typename T>
cudaError_t start_add_slices(const float* partial, std::int64_t count, std::int64_t slices, void* out,
                             cudaStream_t stream) {
  const LaunchShape shape{dim3(static_cast<unsigned>(ceil_div<std::int64_t>(count, kThreads))), dim3(kThreads)};
  return launch(add_slices<T>, shape, stream, partial, count, slices, static_cast<T*>(out));
}

// Group g sums the rows g, g + groups, ... into partial [groups, columns]. Grid: columns / kThreads, groups.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    sum_rows(const T* x, std::int64_t rows, std::int64_t columns, std::int64_t groups, float* partial) {
  const std::int64_t column = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (column >= columns) return;
  float sum = 0.0f;
#pragma unroll 4
  for (std::int64_t row = blockIdx.y; row < rows; row += groups) sum += to_float(x[row * columns + column]);
  partial[blockIdx.y * columns + column] = sum;
}

template <typename T>
cudaError_t start_column_sums(const void* x, std::int64_t rows, std::int64_t columns, float* partial, void* out,
                              cudaStream_t stream) {
  const std::int64_t groups = column_sum_groups(rows);
  const LaunchShape shape{
      dim3(static_cast<unsigned>(ceil_div<std::int64_t>(columns, kThreads)), static_cast<unsigned>(groups)),
      dim3(kThreads)};
  const cudaError_t status =
      launch(sum_rows<T>, shape, stream, static_cast<const T*>(x), rows, columns, groups, partial);
  if (status != cudaSuccess) return status;
  return start_add_slices<T>(partial, columns, groups, out, stream);
}

template <typename Run>
cudaError_t for_dtype(Dtype dtype, const Run& run) {
  switch (dtype) {
    case Dtype::float32:
      return run(float{});
    case Dtype::bfloat16:
      return run(__nv_bfloat16{});
    case Dtype::float16:
      return run(__half{});
    default:
      return cudaErrorInvalidValue;
  }
}

bool aligned(const void* pointer) { return reinterpret_cast<std::uintptr_t>(pointer) % 16 == 0; }

bool tensor_cores_take(const Gemm& args) {
  if (args.dtype == Dtype::float32) return false;
  const std::int64_t columns = is_gated(args.epilogue.activation) ? args.columns / 2 : args.columns;
  bool fits = args.a.width % 8 == 0 && args.b.width % 8 == 0 && columns % 8 == 0;
  fits = fits && aligned(args.out) && aligned(args.epilogue.pre);
  for (int i = 0; i < 3; ++i) fits = fits && aligned(args.a.part[i]) && aligned(args.b.part[i]);
  return fits;
}

}  // namespace

std::int64_t gemm_slices(std::int64_t rows, std::int64_t columns, std::int64_t depth, bool a_by_column) {
  if (!a_by_column) return 1;
  const std::int64_t tiles = ceil_div(rows, kTile) * ceil_div(columns, kTile);
  const std::int64_t most = ceil_div(depth, kLeastDepth), wanted = ceil_div(kWantedBlocks, tiles < 1 ? 1 : tiles);
  const std::int64_t slices = most < wanted ? most : wanted;
  return slices < 1 ? 1 : slices;
}

std::int64_t column_sum_groups(std::int64_t rows) {
  const std::int64_t groups = ceil_div(rows, kRowsOfGroup);
  return groups < 1 ? 1 : groups < kMostGroups ? groups : kMostGroups;
}

cudaError_t gemm_cuda(const Gemm& args, cudaStream_t stream) {
  const cudaError_t status = tensor_cores_take(args) ? gemm::run_mma(args, stream) : gemm::run_fma(args, stream);
  if (status != cudaSuccess || args.partial == nullptr) return status;
  const std::int64_t slices = gemm::slices_of(args).count;
  return for_dtype(args.dtype, [&](auto element) {
    return start_add_slices<decltype(element)>(args.partial, args.rows * args.columns, slices, args.out, stream);
  });
}

cudaError_t input_gradient_cuda(const StackedRows& dy, const StackedRows& weight, std::int64_t rows_of_weight,
                                Dtype dtype, void* dx, cudaStream_t stream) {
  Gemm gemm{};
  gemm.dtype = dtype;
  gemm.rows = dy.rows_of_part;
  gemm.columns = weight.width;
  gemm.depth = rows_of_weight;
  gemm.a = dy;
  gemm.b = weight;
  gemm.out = dx;
  return gemm_cuda(gemm, stream);
}

cudaError_t weight_gradient_cuda(const StackedRows& dy, const StackedRows& x, Dtype dtype, float* partial, void* dw,
                                 cudaStream_t stream) {
  Gemm gemm{};
  gemm.dtype = dtype;
  gemm.rows = dy.width;
  gemm.columns = x.width;
  gemm.depth = dy.rows_of_part;
  gemm.a = dy;
  gemm.a_by_column = true;
  gemm.b = x;
  gemm.out = dw;
  gemm.partial = partial;
  return gemm_cuda(gemm, stream);
}

cudaError_t column_sums_cuda(Dtype dtype, const void* x, std::int64_t rows, std::int64_t columns, float* partial,
                             void* out, cudaStream_t stream) {
  return for_dtype(dtype, [&](auto element) {
    return start_column_sums<decltype(element)>(x, rows, columns, partial, out, stream);
  });
}

}  // namespace sentcore
