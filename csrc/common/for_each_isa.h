// Compiles the file that SENTCORE_ISA_SOURCE names once for each instruction set, in namespaces of their own, and picks
// the best one of the machine at run time. No guard: each use is for another file.
//
//   #define SENTCORE_ISA_SOURCE "ops/x/x_cpu_kernel.h"
//   #include "common/for_each_isa.h"
//   void x(const Args& args) { SENTCORE_BEST_ISA(run(args)); }      // run is in namespace sentcore::SENTCORE_ISA
//
// The file sees SENTCORE_ISA (its namespace), SENTCORE_VECTOR_BYTES and SENTCORE_VECTOR_COUNT (vector registers),
// includes nothing of the standard library and has no lambdas, which would be compiled for the oldest machine.

#include "common/isa.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define SENTCORE_ISA isa_avx512
#define SENTCORE_VECTOR_BYTES 64
#define SENTCORE_VECTOR_COUNT 32
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")
#include SENTCORE_ISA_SOURCE
#pragma GCC pop_options
#undef SENTCORE_ISA
#undef SENTCORE_VECTOR_BYTES
#undef SENTCORE_VECTOR_COUNT

#define SENTCORE_ISA isa_avx2
#define SENTCORE_VECTOR_BYTES 32
#define SENTCORE_VECTOR_COUNT 16
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#include SENTCORE_ISA_SOURCE
#pragma GCC pop_options
#undef SENTCORE_ISA
#undef SENTCORE_VECTOR_BYTES
#undef SENTCORE_VECTOR_COUNT
#endif

#define SENTCORE_ISA isa_portable
#define SENTCORE_VECTOR_BYTES 16
#define SENTCORE_VECTOR_COUNT 16
#include SENTCORE_ISA_SOURCE
#undef SENTCORE_ISA
#undef SENTCORE_VECTOR_BYTES
#undef SENTCORE_VECTOR_COUNT
#undef SENTCORE_ISA_SOURCE
