// CPU kernel of packed_linear; packed_linear.h says what each tensor is.

#include <algorithm>
#include <cstdint>

#include "common/cpu.h"
#include "ops/packed_linear/packed_linear.h"

#define SENTCORE_ISA_WITH_BF16
#define SENTCORE_ISA_SOURCE "ops/packed_linear/packed_linear_cpu_kernel.inl"
#include "common/for_each_isa.h"
#define SENTCORE_AMX_SOURCE "ops/packed_linear/packed_linear_cpu_tiles.inl"
#include "common/for_amx.h"

namespace sentcore {
namespace {

constexpr std::int64_t kMostRows = 192;        // of a block, whose part of a block of the depth stays in L2
constexpr std::int64_t kMostTileRows = 512;    // the same with tiles, which wait for the weight rather than for rows
constexpr std::int64_t kCostOfTask = 1 << 18;  // multiply-adds; below, another thread costs more than it gains

bool has_tiles(const PackedLinear& args) {
  return SENTCORE_COMPILES_AMX && args.dtype == Dtype::bfloat16 && best_isa() >= Isa::amx;
}

std::int64_t floats_of(const PackedLinear& args, const PackedLinearTask& task) {
  SENTCORE_BEST_ISA_WITH_BF16(floats_of(args, task));
}
void run_vectors(const PackedLinear& args, const PackedLinearTask& task, float* memory) {
  SENTCORE_BEST_ISA_WITH_BF16(run(args, task, memory));
}
std::int64_t bytes_of(const PackedLinear& args, const PackedLinearTask& task) {
  if (has_tiles(args)) SENTCORE_TRY_AMX(tile_bytes_of(args, task));
  return floats_of(args, task) * static_cast<std::int64_t>(sizeof(float));
}
void run(const PackedLinear& args, const PackedLinearTask& task, void* memory) {
  if (has_tiles(args)) SENTCORE_TRY_AMX(run_tiles(args, task, memory));
  run_vectors(args, task, static_cast<float*>(memory));
}

}  // namespace

void packed_linear_cpu(const PackedLinear& args) {
  const std::int64_t panels = ceil_div(args.columns, kPanelColumns), threads = cpu::num_threads();
  // Blocks of rows, of one size nearly; where there are fewer than threads, the panels are shared out too.
  std::int64_t blocks = ceil_div(args.rows, has_tiles(args) ? kMostTileRows : kMostRows);
  if (blocks > threads) blocks = ceil_div(blocks, threads) * threads;
  const std::int64_t shares = std::min(panels, std::max<std::int64_t>(1, threads / blocks));
  const std::int64_t rows = ceil_div(args.rows, blocks);
  const std::int64_t cost = rows * args.depth * ceil_div(args.columns, shares);
  const std::int64_t grain = std::max<std::int64_t>(1, kCostOfTask / std::max<std::int64_t>(1, cost));
  const std::int64_t bytes = bytes_of(args, {0, rows, 0, ceil_div(panels, shares)});
  cpu::parallel_for(blocks * shares, grain, [&](std::int64_t begin, std::int64_t end) {
    const cpu::ThreadMemory memory(bytes);
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
