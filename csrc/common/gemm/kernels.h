// The kernels behind gemm_cuda, and how K is cut.
#pragma once

#include "common/gemm/gemm.h"

namespace sentcore::gemm {

// Products on tensor cores; see its file for what it takes.
cudaError_t run_mma(const Gemm& args, cudaStream_t stream);
// Products by multiply-adds in float32: every dtype, size and alignment.
cudaError_t run_fma(const Gemm& args, cudaStream_t stream);

// Products on tensor cores by sm_90a's own instructions, of what the tensor cores' kernel takes and sm90a_takes.
cudaError_t run_bfloat16_sm90a(const Gemm& args, cudaStream_t stream);
cudaError_t run_float16_sm90a(const Gemm& args, cudaStream_t stream);

struct Slices {
  std::int64_t count;
  std::int64_t depth;  // of each but the last, a multiple of 64, the depth of the deepest step
};
inline Slices slices_of(const Gemm& args) {
  const std::int64_t count =
      args.partial == nullptr ? 1 : gemm_slices(args.rows, args.columns, args.depth, args.a_by_column);
  return {count, ceil_div<std::int64_t>(ceil_div<std::int64_t>(args.depth, count), 64) * 64};
}

}  // namespace sentcore::gemm
