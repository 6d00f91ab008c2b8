// The products of float16 on sm_90a.

#include "common/gemm/sm90a_kernels.cuh"

namespace sentcore {

cudaError_t gemm::run_float16_sm90a(const Gemm& args, cudaStream_t stream) { return run_sm90a<__half>(args, stream); }

}  // namespace sentcore
