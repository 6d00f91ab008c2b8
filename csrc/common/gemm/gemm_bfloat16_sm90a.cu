// The products of bfloat16 on sm_90a.

#include "common/gemm/kernels_sm90a.cuh"

namespace sentcore {

cudaError_t gemm::run_bfloat16_sm90a(const Gemm& args, cudaStream_t stream) {
  return run_hopper<__nv_bfloat16>(args, stream);
}

}  // namespace sentcore
