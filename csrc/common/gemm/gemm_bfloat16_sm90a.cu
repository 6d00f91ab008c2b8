// The products of bfloat16 on sm_90a.

#include "common/gemm/sm90a_kernels.cuh"

namespace sentcore {

cudaError_t gemm::run_bfloat16_sm90a(const Gemm& args, cudaStream_t stream) {
  return run_sm90a<__nv_bfloat16>(args, stream);
}

}  // namespace sentcore
