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

constexpr std::int64_t kBlockBytes = 3 << 17;  // of x, which stays in L2 while the weight goes past
constexpr std::int64_t kMostRows = 192;        // of a block
constexpr std::int64_t kCostOfTask = 1 << 18;  // multiply-adds; below, another thread costs more than it gains

std::int64_t memory_of(std::int64_t rows, std::int64_t depth) { SENTCORE_BEST_ISA_WITH_BF16(memory_of(rows, depth)); }
void run(const PackedLinear& args, std::int64_t first_row, std::int64_t last_row, std::int64_t first_panel,
         std::int64_t last_panel, void* memory) {
  SENTCORE_BEST_ISA_WITH_BF16(run(args, first_row, last_row, first_panel, last_panel, memory));
}

}  // namespace

void packed_linear_cpu(const PackedLinear& args) {
  const std::int64_t panels = ceil_div(args.columns, kPanelColumns), threads = cpu::num_threads();
  // Blocks of rows, of one size nearly; where there are fewer than threads, the panels are shared out too.
  const std::int64_t bytes_of_row = args.depth * (args.dtype == Dtype::bfloat16 ? 2 : 4);
  const std::int64_t most = std::clamp<std::int64_t>(kBlockBytes / bytes_of_row, 24, kMostRows);
  std::int64_t blocks = ceil_div(args.rows, most);
  if (blocks > threads) blocks = ceil_div(blocks, threads) * threads;
  const std::int64_t shares = std::min(panels, std::max<std::int64_t>(1, threads / blocks));
  const std::int64_t rows = ceil_div(args.rows, blocks);
  const std::int64_t cost = rows * args.depth * ceil_div(args.columns, shares);
  const std::int64_t grain = std::max<std::int64_t>(1, kCostOfTask / std::max<std::int64_t>(1, cost));
  const std::int64_t bytes = memory_of(rows, args.depth);
  cpu::parallel_for(blocks * shares, grain, [&](std::int64_t begin, std::int64_t end) {
    const std::unique_ptr<unsigned char[]> memory(new unsigned char[static_cast<std::size_t>(bytes)]);
    for (std::int64_t task = begin; task < end; ++task) {
      const std::int64_t block = task / shares, share = task % shares;
      run(args, args.rows * block / blocks, args.rows * (block + 1) / blocks, panels * share / shares,
          panels * (share + 1) / shares, memory.get());
    }
  });
}

}  // namespace sentcore
