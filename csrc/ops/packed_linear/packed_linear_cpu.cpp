// CPU kernel of packed_linear; packed_linear.h says what each tensor is.

#include <algorithm>
#include <cstdint>
#include <memory>

#include "common/cpu.h"
#include "ops/packed_linear/packed_linear.h"

#define SENTCORE_ISA_WITH_BF16
#define SENTCORE_ISA_SOURCE "ops/packed_linear/packed_linear_cpu_kernel.inl"
#include "common/for_each_isa.h"

namespace sentcore {
namespace {

constexpr std::int64_t kMostRows = 192;        // of a block, whose part of a block of the depth stays in L2
constexpr std::int64_t kCostOfTask = 1 << 18;  // multiply-adds; below, another thread costs more than it gains

std::int64_t floats_of(const PackedLinear& args, const PackedLinearTask& task) {
  SENTCORE_BEST_ISA_WITH_BF16(floats_of(args, task));
}
void run(const PackedLinear& args, const PackedLinearTask& task, float* memory) {
  SENTCORE_BEST_ISA_WITH_BF16(run(args, task, memory));
}

}  // namespace

void packed_linear_cpu(const PackedLinear& args) {
  const std::int64_t panels = ceil_div(args.columns, kPanelColumns), threads = cpu::num_threads();
  // Blocks of rows, of one size nearly; where there are fewer than threads, the panels are shared out too.
  std::int64_t blocks = ceil_div(args.rows, kMostRows);
  if (blocks > threads) blocks = ceil_div(blocks, threads) * threads;
  const std::int64_t shares = std::min(panels, std::max<std::int64_t>(1, threads / blocks));
  const std::int64_t rows = ceil_div(args.rows, blocks);
  const std::int64_t cost = rows * args.depth * ceil_div(args.columns, shares);
  const std::int64_t grain = std::max<std::int64_t>(1, kCostOfTask / std::max<std::int64_t>(1, cost));
  const std::int64_t floats = floats_of(args, {0, rows, 0, ceil_div(panels, shares)});
  cpu::parallel_for(blocks * shares, grain, [&](std::int64_t begin, std::int64_t end) {
    const std::unique_ptr<float[]> memory(new float[static_cast<std::size_t>(floats)]);
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t block = i / shares, share = i % shares;
      run(args,
          {args.rows * block / blocks, args.rows * (block + 1) / blocks, panels * share / shares,
           panels * (share + 1) / shares},
          memory.get());
    }
  });
}

}  // namespace sentcore
