// Compiles the file that SENTCORE_ISA_SOURCE names once for each instruction set, in namespaces of their own, and picks
// the best one of the machine at run time. No guard: each use is for another file.
//
//   #define SENTCORE_ISA_SOURCE "ops/x/x_cpu_kernel.h"
//   #define SENTCORE_ISA_WITH_BF16                                  // or _VNNI, where the file has code for it
//   #include "common/for_each_isa.h"
//   void x(const Args& args) { SENTCORE_BEST_ISA_WITH_BF16(run(args)); }  // run is in sentcore::SENTCORE_ISA
//
// The file sees SENTCORE_ISA (its namespace), SENTCORE_VECTOR_BYTES and SENTCORE_VECTOR_COUNT (vector registers),
// SENTCORE_ISA_HAS_BF16 and SENTCORE_ISA_HAS_VNNI (0 or 1), includes nothing of the standard library and has no
// lambdas, which would be compiled for the oldest machine. What it defines stands in an unnamed namespace inside
// SENTCORE_ISA: another room may have a function of the same name.

#include "common/isa.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#include <immintrin.h>

#define SENTCORE_VECTOR_BYTES 64
#define SENTCORE_VECTOR_COUNT 32

#ifdef SENTCORE_ISA_WITH_BF16
#define SENTCORE_ISA isa_avx512_bf16
#define SENTCORE_ISA_HAS_BF16 1
#define SENTCORE_ISA_HAS_VNNI 1
#pragma GCC push_options
#pragma GCC target("avx512bf16,avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")
#include SENTCORE_ISA_SOURCE
#pragma GCC pop_options
#undef SENTCORE_ISA
#undef SENTCORE_ISA_HAS_BF16
#undef SENTCORE_ISA_HAS_VNNI
#endif

#define SENTCORE_ISA_HAS_BF16 0

#ifdef SENTCORE_ISA_WITH_VNNI
#define SENTCORE_ISA isa_avx512_vnni
#define SENTCORE_ISA_HAS_VNNI 1
#pragma GCC push_options
#pragma GCC target("avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")
#include SENTCORE_ISA_SOURCE
#pragma GCC pop_options
#undef SENTCORE_ISA
#undef SENTCORE_ISA_HAS_VNNI
#endif

#define SENTCORE_ISA_HAS_VNNI 0

#define SENTCORE_ISA isa_avx512
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
#else
#define SENTCORE_ISA_HAS_BF16 0
#define SENTCORE_ISA_HAS_VNNI 0
#endif

#define SENTCORE_ISA isa_portable
#define SENTCORE_VECTOR_BYTES 16
#define SENTCORE_VECTOR_COUNT 16
#include SENTCORE_ISA_SOURCE
#undef SENTCORE_ISA
#undef SENTCORE_VECTOR_BYTES
#undef SENTCORE_VECTOR_COUNT
#undef SENTCORE_ISA_HAS_BF16
#undef SENTCORE_ISA_HAS_VNNI
#undef SENTCORE_ISA_WITH_BF16
#undef SENTCORE_ISA_WITH_VNNI
#undef SENTCORE_ISA_SOURCE
