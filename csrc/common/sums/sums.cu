// Sums of slices and of columns; sums.h says of what.

#include "common/dtypes.cuh"
#include "common/sums/sums.h"

namespace sentcore {
namespace {

constexpr int kThreads = 256;
constexpr std::int64_t kRowsOfGroup = 64;
constexpr std::int64_t kMostGroups = 264;  // a constant, so that sums do not depend on the GPU

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
  const std::int64_t groups = sum_groups(rows);
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

}  // namespace

std::int64_t sum_groups(std::int64_t rows) {
  const std::int64_t groups = ceil_div(rows, kRowsOfGroup);
  return groups < 1 ? 1 : groups < kMostGroups ? groups : kMostGroups;
}

cudaError_t add_slices_cuda(Dtype dtype, const float* partial, std::int64_t count, std::int64_t slices, void* out,
                            cudaStream_t stream) {
  return for_dtype(
      dtype, [&](auto element) { return start_add_slices<decltype(element)>(partial, count, slices, out, stream); });
}

cudaError_t column_sums_cuda(Dtype dtype, const void* x, std::int64_t rows, std::int64_t columns, float* partial,
                             void* out, cudaStream_t stream) {
  return for_dtype(dtype, [&](auto element) {
    return start_column_sums<decltype(element)>(x, rows, columns, partial, out, stream);
  });
}

}  // namespace sentcore
