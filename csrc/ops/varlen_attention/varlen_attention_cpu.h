// How the CPU kernels of varlen_attention share their work out among threads.
#pragma once

#include <algorithm>
#include <cstdint>

#include "common/cpu.h"
#include "ops/varlen_attention/varlen_attention.h"

namespace sentcore::attention {

constexpr std::int64_t kSharesOfThread = 4;    // of the work, so that one that finishes early is not idle for long
constexpr std::int64_t kCostOfTask = 1 << 17;  // multiply-adds; below, another thread costs more than it gains

// run(groups, from, step, memory) for shares of the work: the units from, from + step, ... of B * groups, where unit u
// is the u % groups-th share of the heads of sentence u / groups. `products` is the number of matrix products of a
// head.
template <typename Run>
void share_out(const VarlenAttention& given, std::int64_t products, std::int64_t bytes, const Run& run) {
  if (given.sentences == 0) return;
  // The heads of a sentence in as few groups as give all threads some, for a thread that takes several heads of a
  // sentence finds them side by side. Neither changes a result.
  const std::int64_t wanted = kSharesOfThread * cpu::num_threads();
  const std::int64_t groups = std::min<std::int64_t>(given.heads, ceil_div(wanted, given.sentences));
  // Sentences of a batch come by length, so each share takes every n-th unit and not a run of them.
  const std::int64_t units = given.sentences * groups, slots = std::min(units, wanted);
  const std::int64_t rows = std::max(given.tokens_q, given.tokens_k) / given.sentences + 1;
  const std::int64_t cost = products * rows * rows * given.size * given.heads * given.sentences / slots;
  const std::int64_t grain = std::max<std::int64_t>(1, kCostOfTask / std::max<std::int64_t>(1, cost));
  cpu::parallel_for(slots, grain, [&](std::int64_t begin, std::int64_t end) {
    const cpu::ThreadMemory memory(bytes);
    for (std::int64_t slot = begin; slot < end; ++slot) run(groups, slot, slots, memory.get());
  });
}

}  // namespace sentcore::attention
