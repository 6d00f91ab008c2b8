#include "common/sm90a/tensor_map.h"

namespace sentcore {

#ifndef SENTCORE_EMULATE

namespace {

using Encode = decltype(&cuTensorMapEncodeTiled);

// The driver's function, asked for at run time: the library is not linked to libcuda, which a machine without a driver
// does not have.
Encode encode() {
  static const Encode function = [] {
    void* entry = nullptr;
    cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
#if CUDART_VERSION >= 12050
    const cudaError_t status =
        cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &entry, 12000, cudaEnableDefault, &found);
#else
    const cudaError_t status = cudaGetDriverEntryPoint("cuTensorMapEncodeTiled", &entry, cudaEnableDefault, &found);
#endif
    return status == cudaSuccess && found == cudaDriverEntryPointSuccess ? reinterpret_cast<Encode>(entry) : nullptr;
  }();
  return function;
}

}  // namespace

cudaError_t make_tensor_map(TensorMap* map, const void* matrix, std::int64_t rows, std::int64_t columns,
                            std::int64_t stride) {
  const Encode function = encode();
  if (function == nullptr) return cudaErrorNotSupported;
  const cuuint64_t sizes[2] = {static_cast<cuuint64_t>(columns), static_cast<cuuint64_t>(rows)};
  const cuuint64_t row_bytes[1] = {static_cast<cuuint64_t>(stride) * 2};
  const cuuint32_t box[2] = {kBoxBytes / 2, kBoxRows};
  const cuuint32_t steps[2] = {1, 1};
  // Only bits are moved, so float16 goes by the name of bfloat16.
  const CUresult result = function(map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, const_cast<void*>(matrix), sizes,
                                   row_bytes, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                                   CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  return result == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}

#else

cudaError_t make_tensor_map(TensorMap* map, const void* matrix, std::int64_t rows, std::int64_t columns,
                            std::int64_t stride) {
  if (reinterpret_cast<std::uintptr_t>(matrix) % 16 != 0 || stride % 8 != 0 || stride < columns || rows < 1 ||
      columns < 1) {
    return cudaErrorInvalidValue;
  }
  *map = {static_cast<unsigned char*>(const_cast<void*>(matrix)), rows, columns, stride};
  return cudaSuccess;
}

#endif

}  // namespace sentcore
