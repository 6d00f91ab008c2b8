// The one way to launch a kernel and the two ways to get shared memory; the emulation has its own of each.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>

// SENTCORE_SHARED(float, partial, [32]);   static shared memory, aligned to 16 bytes
#define SENTCORE_SHARED(type, name, extents) __shared__ __align__(16) type name extents

// SENTCORE_DYNAMIC_SHARED(float, rows);    float* rows, the bytes given to launch(); aligned to 128 bytes
#define SENTCORE_DYNAMIC_SHARED(type, name)                                 \
  extern __shared__ __align__(128) unsigned char sentcore_dynamic_shared[]; \
  type* name = reinterpret_cast<type*>(sentcore_dynamic_shared)

namespace sentcore {

struct LaunchShape {
  dim3 grid;
  dim3 block;
  std::size_t shared_bytes = 0;
  std::size_t shared_limit =
      99 * 1024;  // of the smallest GPU the kernel is compiled for; the emulation holds it to that
};

template <typename T>
struct Given {
  using type = T;
};

// More dynamic shared memory than this is asked for. CUDA gives a block 48 kB unasked, of which its static shared
// memory is a part; a test holds that to what is left of 48 kB here, and of 99 kB below.
constexpr std::size_t kUnaskedSharedBytes = 32 * 1024;

#ifdef __CUDACC__
// Starts kernel(args...) on `stream` and returns what CUDA said of the launch. An empty grid is no work and no error.
template <typename... Params>
cudaError_t launch(void (*kernel)(Params...), const LaunchShape& shape, cudaStream_t stream,
                   typename Given<Params>::type... args) {
  if (shape.grid.x == 0 || shape.grid.y == 0 || shape.grid.z == 0) return cudaSuccess;
  if (shape.shared_bytes > kUnaskedSharedBytes) {
    // What is asked for holds for the kernel, not for the launch: were it less for a shorter sentence, another thread
    // that launches the kernel for a longer one at this moment would be refused. Every GPU of sm_80 or later has it.
    constexpr std::size_t at_least = 88 * 1024;
    const std::size_t asked = shape.shared_bytes > at_least ? shape.shared_bytes : at_least;
    const cudaError_t status =
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(asked));
    if (status != cudaSuccess) return status;
  }
  kernel<<<shape.grid, shape.block, shape.shared_bytes, stream>>>(args...);
  return cudaGetLastError();
}
#endif

}  // namespace sentcore
