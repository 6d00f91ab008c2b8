// What a .cu file is compiled against: CUDA, or the emulation that runs it on a CPU. The choice is made here alone.
// Both sides give the same names: the CUDA language, ptx:: functions, launch(), the shared-memory macros.
#pragma once

#include "common/portable.h"

#ifdef SENTCORE_EMULATE
#include "emulation/device.h"
#else
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "common/launch.cuh"
#ifdef __CUDACC__  // host files take launch declarations from here, and know no device functions
#include "common/ptx.cuh"
#include "common/ptx_fp8.cuh"
#endif
#endif
