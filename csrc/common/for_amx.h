// Compiles the file that SENTCORE_AMX_SOURCE names for CPUs with matrix tiles, where the compiler knows them, in
// sentcore::isa_amx. Beside for_each_isa.h, and with the same rules for the file: what it holds is another way of doing
// what the kernel of the other instruction sets does. No guard: each use is for another file.
//
//   #define SENTCORE_AMX_SOURCE "ops/x/x_cpu_tiles.inl"
//   #include "common/for_amx.h"
//   void x(const Args& args) { SENTCORE_TRY_AMX(run_tiles(args)); ... }  // run_tiles is in sentcore::SENTCORE_ISA

#include "common/isa.h"

#if SENTCORE_COMPILES_AMX
#include <immintrin.h>

#define SENTCORE_ISA isa_amx
#define SENTCORE_VECTOR_BYTES 64
#define SENTCORE_VECTOR_COUNT 32
#define SENTCORE_ISA_HAS_BF16 1
#define SENTCORE_ISA_HAS_VNNI 1
#pragma GCC push_options
#pragma GCC target("amx-tile,amx-bf16,amx-int8,avx512bf16,avx512vnni,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")
#include SENTCORE_AMX_SOURCE
#pragma GCC pop_options
#undef SENTCORE_ISA
#undef SENTCORE_VECTOR_BYTES
#undef SENTCORE_VECTOR_COUNT
#undef SENTCORE_ISA_HAS_BF16
#undef SENTCORE_ISA_HAS_VNNI
#endif
#undef SENTCORE_AMX_SOURCE
