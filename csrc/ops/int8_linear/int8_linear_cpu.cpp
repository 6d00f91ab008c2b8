// CPU kernel of int8_linear; int8_linear.h says what each tensor is.

#include <algorithm>
#include <cstdint>

#include "common/cpu.h"
#include "ops/int8_linear/int8_linear.h"

#define SENTCORE_ISA_WITH_BF16
#define SENTCORE_ISA_WITH_VNNI
#define SENTCORE_ISA_SOURCE "ops/int8_linear/int8_linear_cpu_kernel.inl"
#include "common/for_each_isa.h"
#define SENTCORE_AMX_SOURCE "ops/int8_linear/int8_linear_cpu_tiles.inl"
#include "common/for_amx.h"

namespace sentcore {
namespace {

constexpr std::int64_t kBlockBytes = 1 << 17;  // of rounded rows, which stay in L2 while the weight goes past
constexpr std::int64_t kMostRows = 192;        // of a block
constexpr std::int64_t kMostTileRows = 512;  // of one with matrix tiles, which wait for the weight rather than for rows
constexpr std::int64_t kCostOfTask = 1 << 20;  // multiply-adds; below, another thread costs more than it gains

bool has_tiles() { return SENTCORE_COMPILES_AMX && best_isa() >= Isa::amx; }

std::int64_t memory_of(std::int64_t rows, std::int64_t depth) {
  SENTCORE_TRY_AMX(tile_memory_of(rows, depth));
  SENTCORE_BEST_ISA_OF_ALL(memory_of(rows, depth));
}
void run(const Int8Linear& args, std::int64_t first_row, std::int64_t last_row, std::int64_t first_panel,
         std::int64_t last_panel, void* memory) {
  SENTCORE_TRY_AMX(run_tiles(args, first_row, last_row, first_panel, last_panel, memory));
  SENTCORE_BEST_ISA_OF_ALL(run(args, first_row, last_row, first_panel, last_panel, memory));
}

}  // namespace

void int8_linear_cpu(const Int8Linear& args) {
  const std::int64_t panels = ceil_div(args.columns, kInt8Columns), threads = cpu::num_threads();
  // Blocks of rows, of one size nearly; where there are fewer than threads, the panels are shared out too, and each
  // share rounds the rows for itself.
  const std::int64_t most =
      has_tiles() ? kMostTileRows : std::clamp<std::int64_t>(kBlockBytes / args.depth, 24, kMostRows);
  std::int64_t blocks = ceil_div(args.rows, most);
  if (blocks > threads) blocks = ceil_div(blocks, threads) * threads;
  const std::int64_t shares = std::min(panels, std::max<std::int64_t>(1, threads / blocks));
  const std::int64_t rows = ceil_div(args.rows, blocks);
  const std::int64_t cost = rows * args.depth * ceil_div(args.columns, shares);
  const std::int64_t grain = std::max<std::int64_t>(1, kCostOfTask / std::max<std::int64_t>(1, cost));
  const std::int64_t bytes = memory_of(rows, args.depth);
  cpu::parallel_for(blocks * shares, grain, [&](std::int64_t begin, std::int64_t end) {
    const cpu::ThreadMemory memory(bytes);
    for (std::int64_t task = begin; task < end; ++task) {
      const std::int64_t block = task / shares, share = task % shares;
      run(args, args.rows * block / blocks, args.rows * (block + 1) / blocks, panels * share / shares,
          panels * (share + 1) / shares, memory.get());
    }
  });
}

}  // namespace sentcore
