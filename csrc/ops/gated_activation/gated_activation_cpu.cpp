// CPU kernel of gated_activation; gated_activation.h says what each tensor is.

#include <cstdint>

#include "common/cpu.h"
#include "common/row_tasks.h"
#include "ops/gated_activation/gated_activation.h"

#define SENTCORE_ISA_WITH_BF16
#define SENTCORE_ISA_SOURCE "ops/gated_activation/gated_activation_cpu_kernel.inl"
#include "common/for_each_isa.h"

namespace sentcore {
namespace {

void run_rows(const GatedActivation& args, std::int64_t begin, std::int64_t end) {
  SENTCORE_BEST_ISA_WITH_BF16(run_rows(args, begin, end));
}

}  // namespace

void gated_activation_cpu(const GatedActivation& args) {
  cpu::for_rows(args.rows, args.width, [&](std::int64_t begin, std::int64_t end) { run_rows(args, begin, end); });
}

}  // namespace sentcore
