// Where an op room's kernels are registered with torch. The schemas themselves are declared in Python.
#pragma once

#include "common/tensor.h"

// SENTCORE_CPU_OPS(m) { m.impl("op", TORCH_BOX(&cpu_entry)); }
// SENTCORE_CUDA_OPS(m) { m.impl("op", TORCH_BOX(&cuda_entry)); }      inside #ifdef SENTCORE_WITH_CUDA
//
// The emulated library holds the CUDA entries alone. It registers them for CPU tensors, under a namespace of its own,
// so that the real ops stay beside them.
#ifdef SENTCORE_EMULATE
#define SENTCORE_CUDA_OPS(m) STABLE_TORCH_LIBRARY_IMPL(sentcore_emulated, CPU, m)
#else
#define SENTCORE_CPU_OPS(m) STABLE_TORCH_LIBRARY_IMPL(sentcore, CPU, m)
#define SENTCORE_CUDA_OPS(m) STABLE_TORCH_LIBRARY_IMPL(sentcore, CUDA, m)
#endif
