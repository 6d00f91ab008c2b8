// CPU kernel of varlen_attention, forward; varlen_attention.h says what each tensor is.

#include "ops/varlen_attention/varlen_attention_cpu.h"

#include <cstdint>

#include "common/cpu.h"
#include "common/philox.cuh"
#include "ops/varlen_attention/varlen_attention.h"

#define SENTCORE_ISA_WITH_BF16
#define SENTCORE_ISA_SOURCE "ops/varlen_attention/varlen_attention_cpu_kernel.inl"
#include "common/for_each_isa.h"

namespace sentcore {
namespace {

std::int64_t memory_of(const VarlenAttention& given) { SENTCORE_BEST_ISA_WITH_BF16(memory_of(given)); }
void run(const VarlenAttentionForward& args, std::int64_t groups, std::int64_t from, std::int64_t step, void* memory) {
  SENTCORE_BEST_ISA_WITH_BF16(run(args, groups, from, step, memory));
}

}  // namespace

void varlen_attention_forward_cpu(const VarlenAttentionForward& args) {
  attention::share_out(args.given, 2, memory_of(args.given),
                       [&](std::int64_t groups, std::int64_t from, std::int64_t step, void* memory) {
                         run(args, groups, from, step, memory);
                       });
}

}  // namespace sentcore
