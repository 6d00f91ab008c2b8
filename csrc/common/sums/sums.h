// Sums over rows or slices whose order is fixed: they repeat bit for bit, on any GPU.
//
// A kernel that sums over T gives group g of `sum_groups(T)` the rows g, g + groups, ... and lets it write its sums to
// slice g of a float32 buffer; add_slices adds the slices in order.
#pragma once

#include <cstdint>

#include "common/device.cuh"

namespace sentcore {

std::int64_t sum_groups(std::int64_t rows);

// out [count] dtype = the sum over slices of partial [slices, count] float32, in order.
cudaError_t add_slices_cuda(Dtype dtype, const float* partial, std::int64_t count, std::int64_t slices, void* out,
                            cudaStream_t stream);

// out [N] dtype = the sums over rows of x [M, N] dtype; partial [sum_groups(M), N] float32 is scratch.
cudaError_t column_sums_cuda(Dtype dtype, const void* x, std::int64_t rows, std::int64_t columns, float* partial,
                             void* out, cudaStream_t stream);

}  // namespace sentcore
