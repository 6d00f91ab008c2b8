// CPU kernels of bias_gelu_layer_norm; bias_gelu_layer_norm.h says what each tensor is. The formulas are those of the
// .cu files.

#include <cstdint>

#include "common/cpu.h"
#include "common/row_tasks.h"
#include "ops/bias_gelu_layer_norm/bias_gelu_layer_norm.h"

namespace sentcore {
namespace {

// Buffers of one thread: H-vectors widened once, a row, and sums over a group's rows; all [H] float32 (float64).
struct BiasGeluLayerNormBuffers {
  const void *bias, *weight, *norm_bias;  // null where the op has none
  void *row, *slope, *grad, *sums[3];
};

}  // namespace
}  // namespace sentcore

#define SENTCORE_ISA_WITH_BF16
#define SENTCORE_ISA_SOURCE "ops/bias_gelu_layer_norm/bias_gelu_layer_norm_cpu_kernel.inl"
#include "common/for_each_isa.h"

namespace sentcore {
namespace {

void run_rows(const BiasGeluLayerNormForward& args, const BiasGeluLayerNormBuffers& buffers, std::int64_t begin,
              std::int64_t end) {
  SENTCORE_BEST_ISA_WITH_BF16(run_rows(args, buffers, begin, end));
}
void run_group(const BiasGeluLayerNormBackward& args, const BiasGeluLayerNormBuffers& buffers, std::int64_t group) {
  SENTCORE_BEST_ISA_WITH_BF16(run_group(args, buffers, group));
}

}  // namespace

std::int64_t bias_gelu_layer_norm_groups_cpu(std::int64_t rows) { return cpu::sum_groups(rows); }

void bias_gelu_layer_norm_forward_cpu(const BiasGeluLayerNormForward& args) {
  cpu::for_rows(args.rows, args.hidden, [&](std::int64_t begin, std::int64_t end) {
    const cpu::RowBuffers memory(4, args.hidden, args.dtype);
    BiasGeluLayerNormBuffers buffers{};
    buffers.bias = cpu::widen_into(memory, 0, args.weight_dtype, args.bias, args.hidden);
    buffers.weight = cpu::widen_into(memory, 1, args.weight_dtype, args.weight, args.hidden);
    buffers.norm_bias = cpu::widen_into(memory, 2, args.weight_dtype, args.norm_bias, args.hidden);
    buffers.row = memory.get<void>(3);
    run_rows(args, buffers, begin, end);
  });
}

void bias_gelu_layer_norm_backward_cpu(const BiasGeluLayerNormBackward& args) {
  cpu::parallel_for(args.groups, 1, [&](std::int64_t begin, std::int64_t end) {
    const cpu::RowBuffers memory(8, args.hidden, args.dtype);
    BiasGeluLayerNormBuffers buffers{};
    buffers.bias = cpu::widen_into(memory, 0, args.weight_dtype, args.bias, args.hidden);
    buffers.weight = cpu::widen_into(memory, 1, args.weight_dtype, args.weight, args.hidden);
    buffers.row = memory.get<void>(2);
    buffers.slope = memory.get<void>(3);
    buffers.grad = memory.get<void>(4);
    for (int s = 0; s < 3; ++s) buffers.sums[s] = memory.get<void>(5 + s);
    for (std::int64_t group = begin; group < end; ++group) run_group(args, buffers, group);
  });
  cpu::add_groups(args.weight_dtype,
                  {args.hidden, args.groups, args.partial, {args.grad_bias, args.grad_weight, args.grad_norm_bias}});
}

}  // namespace sentcore
