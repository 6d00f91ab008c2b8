// CPU kernel of varlen_attention, forward; varlen_attention.h says what each tensor is.

#include "ops/varlen_attention/varlen_attention_cpu.h"

#include <cstdint>

#include "common/cpu.h"
#include "common/philox.cuh"
#include "ops/varlen_attention/varlen_attention.h"

#define SENTCORE_ISA_WITH_BF16
#define SENTCORE_ISA_SOURCE "ops/varlen_attention/varlen_attention_cpu_kernel.inl"
#include "common/for_each_isa.h"
#define SENTCORE_AMX_SOURCE "ops/varlen_attention/varlen_attention_cpu_tiles.inl"
#include "common/for_amx.h"

namespace sentcore {
namespace {

bool fits_tiles(const VarlenAttention& given) { return given.dtype == Dtype::bfloat16 && given.size % 2 == 0; }

std::int64_t memory_of(const VarlenAttention& given) {
  if (fits_tiles(given)) SENTCORE_TRY_AMX(tile_memory_of(given));
  SENTCORE_BEST_ISA_WITH_BF16(memory_of(given));
}
void run(const VarlenAttentionForward& args, std::int64_t groups, std::int64_t from, std::int64_t step, void* memory) {
  if (fits_tiles(args.given)) SENTCORE_TRY_AMX(run_tiles(args, groups, from, step, memory));
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
