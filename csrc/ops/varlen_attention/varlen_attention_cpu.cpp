// CPU kernel of varlen_attention, forward; varlen_attention.h says what each tensor is.

#include <algorithm>
#include <cstdint>
#include <memory>

#include "common/cpu.h"
#include "common/philox.cuh"
#include "ops/varlen_attention/varlen_attention.h"

#define SENTCORE_ISA_WITH_BF16
#define SENTCORE_ISA_SOURCE "ops/varlen_attention/varlen_attention_cpu_kernel.inl"
#include "common/for_each_isa.h"

namespace sentcore {
namespace {

constexpr std::int64_t kSharesOfThread = 4;    // of the work, so that one that finishes early is not idle for long
constexpr std::int64_t kCostOfTask = 1 << 17;  // multiply-adds; below, another thread costs more than it gains

std::int64_t memory_of(const VarlenAttention& given) { SENTCORE_BEST_ISA_WITH_BF16(memory_of(given)); }
void run(const VarlenAttentionForward& args, std::int64_t groups, std::int64_t from, std::int64_t step, void* memory) {
  SENTCORE_BEST_ISA_WITH_BF16(run(args, groups, from, step, memory));
}

}  // namespace

void varlen_attention_forward_cpu(const VarlenAttentionForward& args) {
  const VarlenAttention& given = args.given;
  if (given.sentences == 0) return;
  // Shares of the work: the heads of a sentence in as few groups as give all threads some, for a thread that takes
  // several heads of a sentence finds them side by side. Neither changes a result.
  const std::int64_t wanted = kSharesOfThread * cpu::num_threads();
  const std::int64_t groups = std::min<std::int64_t>(given.heads, ceil_div(wanted, given.sentences));
  // Sentences of a batch come by length, so each share takes every n-th unit and not a run of them.
  const std::int64_t units = given.sentences * groups, slots = std::min(units, wanted);
  const std::int64_t rows = given.tokens_q / given.sentences + 1;
  const std::int64_t cost = 2 * rows * rows * given.size * given.heads * given.sentences / slots;
  const std::int64_t grain = std::max<std::int64_t>(1, kCostOfTask / std::max<std::int64_t>(1, cost));
  const std::int64_t bytes = memory_of(given);
  cpu::parallel_for(slots, grain, [&](std::int64_t begin, std::int64_t end) {
    const std::unique_ptr<unsigned char[]> memory(new unsigned char[static_cast<std::size_t>(bytes)]);
    for (std::int64_t slot = begin; slot < end; ++slot) run(args, groups, slot, slots, memory.get());
  });
}

}  // namespace sentcore
