// CPU kernel of varlen_attention, forward; varlen_attention.h says what each tensor is.

#include <algorithm>
#include <cstdint>
#include <memory>

#include "common/cpu.h"
#include "common/philox.cuh"
#include "ops/varlen_attention/varlen_attention.h"

#define SENTCORE_ISA_SOURCE "ops/varlen_attention/varlen_attention_cpu_kernel.inl"
#include "common/for_each_isa.h"

namespace sentcore {
namespace {

constexpr std::int64_t kMostSlots = 64;  // shares of the work; more than threads, so that idle threads find some
constexpr std::int64_t kCostOfTask =
    1 << 17;  // multiply-adds; below, handing work to a thread costs more than it gains

std::int64_t memory_of(const VarlenAttention& given) { SENTCORE_BEST_ISA(memory_of(given)); }
void run(const VarlenAttentionForward& args, std::int64_t groups, std::int64_t from, std::int64_t step, void* memory) {
  SENTCORE_BEST_ISA(run(args, groups, from, step, memory));
}

}  // namespace

void varlen_attention_forward_cpu(const VarlenAttentionForward& args) {
  const VarlenAttention& given = args.given;
  if (given.sentences == 0) return;
  // A thread that takes all heads of a sentence finds them side by side; few sentences are shared out by heads.
  const std::int64_t groups = given.sentences >= kMostSlots ? 1 : given.heads;
  // Sentences of a batch come by length, so each share takes every n-th unit and not a run of them.
  const std::int64_t units = given.sentences * groups, slots = std::min(units, kMostSlots);
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
