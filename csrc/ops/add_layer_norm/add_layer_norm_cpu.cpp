// CPU kernels of add_layer_norm; add_layer_norm.h says what each tensor is. The formulas are those of the .cu files.

#include <cstdint>

#include "common/cpu.h"
#include "common/philox.cuh"
#include "common/row_tasks.h"
#include "ops/add_layer_norm/add_layer_norm.h"

namespace sentcore {
namespace {

// Buffers of one thread: H-vectors widened once, a row, and sums over a group's rows; all [H] float32 (float64).
struct AddLayerNormBuffers {
  const void *weight, *norm_bias, *x_bias;  // the biases null where the op has none
  void *row, *grad, *sums[3];
  std::uint32_t* words;  // [H + 8]: what dropout draws for a row
};

}  // namespace
}  // namespace sentcore

#define SENTCORE_ISA_WITH_BF16
#define SENTCORE_ISA_SOURCE "ops/add_layer_norm/add_layer_norm_cpu_kernel.inl"
#include "common/for_each_isa.h"

namespace sentcore {
namespace {

void run_rows(const AddLayerNormForward& args, const AddLayerNormBuffers& buffers, std::int64_t begin,
              std::int64_t end) {
  SENTCORE_BEST_ISA_WITH_BF16(run_rows(args, buffers, begin, end));
}
void run_group(const AddLayerNormBackward& args, const AddLayerNormBuffers& buffers, std::int64_t group) {
  SENTCORE_BEST_ISA_WITH_BF16(run_group(args, buffers, group));
}

}  // namespace

std::int64_t add_layer_norm_groups_cpu(std::int64_t rows) { return cpu::sum_groups(rows); }

void add_layer_norm_forward_cpu(const AddLayerNormForward& args) {
  cpu::for_rows(args.rows, args.hidden, [&](std::int64_t begin, std::int64_t end) {
    const cpu::RowBuffers memory(5, args.hidden + 8, args.dtype);
    AddLayerNormBuffers buffers{};
    buffers.weight = cpu::widen_into(memory, 0, args.weight_dtype, args.weight, args.hidden);
    buffers.norm_bias = cpu::widen_into(memory, 1, args.weight_dtype, args.norm_bias, args.hidden);
    buffers.x_bias = cpu::widen_into(memory, 2, args.weight_dtype, args.x_bias, args.hidden);
    buffers.row = memory.get<void>(3);
    buffers.words = memory.get<std::uint32_t>(4);
    run_rows(args, buffers, begin, end);
  });
}

void add_layer_norm_backward_cpu(const AddLayerNormBackward& args) {
  cpu::parallel_for(args.groups, 1, [&](std::int64_t begin, std::int64_t end) {
    const cpu::RowBuffers memory(7, args.hidden + 8, args.dtype);
    AddLayerNormBuffers buffers{};
    buffers.weight = cpu::widen_into(memory, 0, args.weight_dtype, args.weight, args.hidden);
    buffers.row = memory.get<void>(1);
    buffers.grad = memory.get<void>(2);
    for (int s = 0; s < 3; ++s) buffers.sums[s] = memory.get<void>(3 + s);
    buffers.words = memory.get<std::uint32_t>(6);
    for (std::int64_t group = begin; group < end; ++group) run_group(args, buffers, group);
  });
  cpu::add_groups(args.weight_dtype,
                  {args.hidden, args.groups, args.partial, {args.grad_weight, args.grad_norm_bias, args.grad_x_bias}});
}

}  // namespace sentcore
