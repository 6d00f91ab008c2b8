// CPU kernels of bias_gelu; bias_gelu.h says what each tensor is.

#include <cstdint>

#include "common/cpu.h"
#include "common/row_tasks.h"
#include "ops/bias_gelu/bias_gelu.h"

#define SENTCORE_ISA_WITH_BF16
#define SENTCORE_ISA_SOURCE "ops/bias_gelu/bias_gelu_cpu_kernel.inl"
#include "common/for_each_isa.h"

namespace sentcore {
namespace {

void run_rows(const BiasGeluForward& args, const void* bias, std::int64_t begin, std::int64_t end) {
  SENTCORE_BEST_ISA_WITH_BF16(run_rows(args, bias, begin, end));
}
void run_group(const BiasGeluBackward& args, const void* bias, void* sums, std::int64_t group) {
  SENTCORE_BEST_ISA_WITH_BF16(run_group(args, bias, sums, group));
}

}  // namespace

std::int64_t bias_gelu_groups_cpu(std::int64_t rows) { return cpu::sum_groups(rows); }

void bias_gelu_forward_cpu(const BiasGeluForward& args) {
  cpu::for_rows(args.rows, args.width, [&](std::int64_t begin, std::int64_t end) {
    const cpu::RowBuffers buffers(1, args.width, args.dtype);
    run_rows(args, cpu::widen_into(buffers, 0, args.bias_dtype, args.bias, args.width), begin, end);
  });
}

void bias_gelu_backward_cpu(const BiasGeluBackward& args) {
  cpu::parallel_for(args.groups, 1, [&](std::int64_t begin, std::int64_t end) {
    const cpu::RowBuffers buffers(2, args.width, args.dtype);
    const void* bias = cpu::widen_into(buffers, 0, args.bias_dtype, args.bias, args.width);
    for (std::int64_t group = begin; group < end; ++group) run_group(args, bias, buffers.get<void>(1), group);
  });
  if (args.grad_bias == nullptr) return;
  cpu::add_groups(args.bias_dtype, {args.width, args.groups, args.partial, {args.grad_bias, nullptr, nullptr}});
}

}  // namespace sentcore
