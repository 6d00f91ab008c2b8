// Which instruction set the CPU kernels run on: the best one here, or what SENTCORE_CPU_ISA allows at most.
#pragma once

#include <cstdlib>
#include <cstring>

namespace sentcore {

enum class Isa { portable, avx2, avx512 };

// SENTCORE_CPU_ISA=portable|avx2|avx512, read once, lowers what the machine has; another value changes nothing.
inline Isa best_isa() {
  static const Isa best = [] {
#if defined(__x86_64__) && defined(__GNUC__)
    const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    const Isa found = avx512 ? Isa::avx512 : avx2 ? Isa::avx2 : Isa::portable;
#else
    const Isa found = Isa::portable;
#endif
    const char* wanted = std::getenv("SENTCORE_CPU_ISA");
    if (wanted == nullptr) return found;
    if (std::strcmp(wanted, "portable") == 0) return Isa::portable;
    if (std::strcmp(wanted, "avx2") == 0 && found == Isa::avx512) return Isa::avx2;
    return found;
  }();
  return best;
}

}  // namespace sentcore

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define SENTCORE_BEST_ISA(call)                                  \
  do {                                                           \
    const ::sentcore::Isa isa = ::sentcore::best_isa();          \
    if (isa == ::sentcore::Isa::avx512) return isa_avx512::call; \
    if (isa == ::sentcore::Isa::avx2) return isa_avx2::call;     \
    return isa_portable::call;                                   \
  } while (false)
#else
#define SENTCORE_BEST_ISA(call) return isa_portable::call
#endif
