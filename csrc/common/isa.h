// Which instruction set the CPU kernels run on: the best one here, or what SENTCORE_CPU_ISA allows at most.
#pragma once

#include <cstdlib>
#include <cstring>

// Matrix tiles, of which the system is asked for the room that they take in a thread's state.
#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 11
#define SENTCORE_COMPILES_AMX 1
#include <sys/syscall.h>
#include <unistd.h>
#else
#define SENTCORE_COMPILES_AMX 0
#endif

namespace sentcore {

// In this order: each has what the ones before it have. avx512: F, BW, DQ and VL; vnni and bf16: with these on top;
// amx: with tiles of bfloat16 and of 8 bits.
enum class Isa { portable, avx2, avx512, avx512_vnni, avx512_bf16, amx };

constexpr const char* kIsaNames[] = {"portable", "avx2", "avx512", "avx512_vnni", "avx512_bf16", "amx"};

// Whether the CPU has tiles and the system lets this process, with all of its threads, use them.
inline bool may_use_amx() {
#if SENTCORE_COMPILES_AMX
  if (!__builtin_cpu_supports("amx-tile") || !__builtin_cpu_supports("amx-bf16") ||
      !__builtin_cpu_supports("amx-int8")) {
    return false;
  }
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

inline Isa isa_of_machine() {
#if defined(__x86_64__) && defined(__GNUC__)
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return Isa::portable;
  if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
      !__builtin_cpu_supports("avx512dq") || !__builtin_cpu_supports("avx512vl")) {
    return Isa::avx2;
  }
  if (!__builtin_cpu_supports("avx512vnni")) return Isa::avx512;
  if (!__builtin_cpu_supports("avx512bf16")) return Isa::avx512_vnni;
  return may_use_amx() ? Isa::amx : Isa::avx512_bf16;
#else
  return Isa::portable;
#endif
}

// SENTCORE_CPU_ISA, one of the names, read once, lowers what the machine has; any other value changes nothing.
inline Isa best_isa() {
  static const Isa best = [] {
    const Isa found = isa_of_machine();
    const char* wanted = std::getenv("SENTCORE_CPU_ISA");
    for (int i = 0; wanted != nullptr && i < static_cast<int>(found); ++i) {
      if (std::strcmp(wanted, kIsaNames[i]) == 0) return static_cast<Isa>(i);
    }
    return found;
  }();
  return best;
}

}  // namespace sentcore

// SENTCORE_BEST_ISA(call) returns call in the namespace of the best instruction set that every file is compiled for;
// the others are for a file that is compiled with SENTCORE_ISA_WITH_BF16, and with SENTCORE_ISA_WITH_VNNI besides.
// SENTCORE_TRY_AMX(call) returns call in what for_amx.h compiles, where the machine has tiles.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define SENTCORE_TRY_ISA(isa, call)                                             \
  do {                                                                          \
    if (::sentcore::best_isa() >= ::sentcore::Isa::isa) return isa_##isa::call; \
  } while (false)
#else
#define SENTCORE_TRY_ISA(isa, call) static_cast<void>(0)
#endif
#if SENTCORE_COMPILES_AMX
#define SENTCORE_TRY_AMX(call) SENTCORE_TRY_ISA(amx, call)
#else
#define SENTCORE_TRY_AMX(call) static_cast<void>(0)
#endif
#define SENTCORE_BEST_ISA(call)   \
  SENTCORE_TRY_ISA(avx512, call); \
  SENTCORE_TRY_ISA(avx2, call);   \
  return isa_portable::call
#define SENTCORE_BEST_ISA_WITH_BF16(call) \
  SENTCORE_TRY_ISA(avx512_bf16, call);    \
  SENTCORE_BEST_ISA(call)
#define SENTCORE_BEST_ISA_OF_ALL(call) \
  SENTCORE_TRY_ISA(avx512_bf16, call); \
  SENTCORE_TRY_ISA(avx512_vnni, call); \
  SENTCORE_BEST_ISA(call)
