// Sums over rows or slices whose order is fixed: they repeat bit for bit, on any GPU.
//
// A kernel that sums over T gives each of a number of groups rows of its own and lets it write its sums to its slice of
// a float32 buffer; add_groups adds the slices of a few columns, add_slices those of a whole product.
#pragma once

#include <cstdint>

#include "common/device.cuh"

namespace sentcore {

// How many groups for kernels of which a thread goes down columns; group g takes the rows g, g + groups, ...
std::int64_t sum_groups(std::int64_t rows);

struct GroupSums {
  std::int64_t columns;  // N
  std::int64_t groups;   // G
  const float* partial;  // [3, G, N] float32, or as many of the three as have an output
  void* outputs[3];      // [N] dtype each, or null to leave that sum out
};

// outputs[s] [N] dtype = the sum over groups of partial[s].
cudaError_t add_groups_cuda(Dtype dtype, const GroupSums& sums, cudaStream_t stream);

// out [count] dtype = the sum over slices of partial [slices, count] float32, in order.
cudaError_t add_slices_cuda(Dtype dtype, const float* partial, std::int64_t count, std::int64_t slices, void* out,
                            cudaStream_t stream);

// out [N] dtype = the sums over rows of x [M, N] dtype; partial [sum_groups(M), N] float32 is scratch.
cudaError_t column_sums_cuda(Dtype dtype, const void* x, std::int64_t rows, std::int64_t columns, float* partial,
                             void* out, cudaStream_t stream);

}  // namespace sentcore
