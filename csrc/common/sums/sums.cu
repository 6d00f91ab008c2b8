// Sums of groups, of slices and of columns; sums.h says of what.

#include "common/dtypes.cuh"
#include "common/sums/sums.h"

namespace sentcore {
namespace {

constexpr int kThreads = 256;
constexpr int kSumColumns = 32;  // add_groups: columns of a block ...
constexpr int kSumSlices = 16;   // ... and threads for each of them
constexpr std::int64_t kRowsOfGroup = 64;
constexpr std::int64_t kMostGroups = 264;  // a constant, so that sums do not depend on the GPU

// Grid: columns / kSumColumns, 3 sums. Thread (c, s) adds the groups s, s + kSumSlices, ... of its column; one thread a
// column then adds those.
template <typename T>
__global__ void __launch_bounds__(kSumColumns* kSumSlices) add_groups(const GroupSums sums) {
  SENTCORE_SHARED(float, slices, [kSumSlices][kSumColumns]);
  const int which = static_cast<int>(blockIdx.y);
  void* const output = which == 0 ? sums.outputs[0] : which == 1 ? sums.outputs[1] : sums.outputs[2];
  if (output == nullptr) return;  // the whole block
  const int c = static_cast<int>(threadIdx.x) % kSumColumns;
  const int s = static_cast<int>(threadIdx.x) / kSumColumns;
  const std::int64_t column = static_cast<std::int64_t>(blockIdx.x) * kSumColumns + c;
  float value = 0.0f;
  if (column < sums.columns) {
    const float* partial = sums.partial + which * sums.groups * sums.columns + column;
#pragma unroll 4
    for (std::int64_t group = s; group < sums.groups; group += kSumSlices) value += partial[group * sums.columns];
  }
  slices[s][c] = value;
  __syncthreads();  // the sums of all threads of a column are written
  if (s == 0 && column < sums.columns) {
    float sum = 0.0f;
#pragma unroll
    for (int slice = 0; slice < kSumSlices; ++slice) sum += slices[slice][c];
    static_cast<T*>(output)[column] = from_float<T>(sum);
  }
}

template <typename T>
cudaError_t start_add_groups(const GroupSums& sums, cudaStream_t stream) {
  const LaunchShape shape{dim3(static_cast<unsigned>(ceil_div<std::int64_t>(sums.columns, kSumColumns)), 3),
                          dim3(kSumColumns * kSumSlices)};
  return launch(add_groups<T>, shape, stream, sums);
}

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
  return start_add_groups<T>({columns, groups, partial, {out, nullptr, nullptr}}, stream);
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

cudaError_t add_groups_cuda(Dtype dtype, const GroupSums& sums, cudaStream_t stream) {
  return for_dtype(dtype, [&](auto element) { return start_add_groups<decltype(element)>(sums, stream); });
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
