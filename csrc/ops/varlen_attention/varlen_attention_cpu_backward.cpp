// CPU kernel of varlen_attention's backward; varlen_attention.h says what each tensor is.

#include <cstdint>

#include "common/cpu.h"
#include "common/philox.cuh"
#include "ops/varlen_attention/varlen_attention.h"
#include "ops/varlen_attention/varlen_attention_cpu.h"

#define SENTCORE_ISA_WITH_BF16
#define SENTCORE_ISA_SOURCE "ops/varlen_attention/varlen_attention_cpu_backward_kernel.inl"
#include "common/for_each_isa.h"

namespace sentcore {
namespace {

std::int64_t backward_memory(const VarlenAttention& given) { SENTCORE_BEST_ISA_WITH_BF16(backward_memory(given)); }
void run_units(const VarlenAttentionBackward& args, std::int64_t groups, std::int64_t from, std::int64_t step,
               void* memory) {
  SENTCORE_BEST_ISA_WITH_BF16(run_units(args, groups, from, step, memory));
}
void run_head(const VarlenAttentionBackward& args, std::int64_t head, void* memory) {
  SENTCORE_BEST_ISA_WITH_BF16(run_head(args, head, memory));
}

}  // namespace

void varlen_attention_backward_cpu(const VarlenAttentionBackward& args) {
  const std::int64_t bytes = backward_memory(args.given);
  if (args.grad_bias == nullptr) {
    attention::share_out(args.given, 5, bytes,
                         [&](std::int64_t groups, std::int64_t from, std::int64_t step, void* memory) {
                           run_units(args, groups, from, step, memory);
                         });
    return;
  }
  // The bias' gradient is a sum over sentences. A thread that owns a head adds them in their order, whatever the number
  // of threads.
  cpu::parallel_for(args.given.heads, 1, [&](std::int64_t begin, std::int64_t end) {
    const cpu::ThreadMemory memory(bytes);
    for (std::int64_t head = begin; head < end; ++head) run_head(args, head, memory.get());
  });
}

}  // namespace sentcore
