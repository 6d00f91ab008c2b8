// How the copy engine of sm_90 sees a matrix: where it begins, how large it is, and the box of it that one copy takes.
#pragma once

#include <cstdint>

#include "common/device.cuh"

#ifdef SENTCORE_EMULATE
#include "emulation/tensor_map.h"
#else
#include <cuda.h>

namespace sentcore {
using TensorMap = CUtensorMap;
}
#endif

namespace sentcore {

// A box is as wide as the 128 bytes that the copy engine swizzles, and 64 rows high: 8 KiB.
constexpr int kBoxBytes = 128;
constexpr int kBoxRows = 64;
constexpr int kBox = kBoxRows * kBoxBytes;

// The map of `matrix` [rows, columns] of 16-bit elements, its rows `stride` elements apart. Its address and the bytes
// between rows are multiples of 16; what a box reads outside is zero, and what it would write there is left out.
cudaError_t make_tensor_map(TensorMap* map, const void* matrix, std::int64_t rows, std::int64_t columns,
                            std::int64_t stride);

}  // namespace sentcore
