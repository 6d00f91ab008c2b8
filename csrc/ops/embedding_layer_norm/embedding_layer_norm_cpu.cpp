// CPU kernels of embedding_layer_norm and of a table's gradient; embedding_layer_norm.h says what each tensor is.

#include <algorithm>
#include <cstdint>
#include <vector>

#include "common/cpu.h"
#include "common/row_tasks.h"
#include "ops/embedding_layer_norm/embedding_layer_norm.h"

namespace sentcore {
namespace {

// The places of id r are order[first[r]] to order[first[r + 1] - 1], in their order.
struct EmbeddingPlaces {
  const std::int64_t* first;  // [rows + 1]
  const std::int64_t* order;  // [T]
};

}  // namespace
}  // namespace sentcore

#define SENTCORE_ISA_WITH_BF16
#define SENTCORE_ISA_SOURCE "ops/embedding_layer_norm/embedding_layer_norm_cpu_kernel.inl"
#include "common/for_each_isa.h"

namespace sentcore {
namespace {

constexpr std::int64_t kFewRows = 64;  // of a table: then its columns are shared out too
constexpr std::int64_t kColumnsOfFewRows = 128;

void run_rows(const EmbeddingLayerNorm& args, const void* weight, const void* norm_bias, void* buffer,
              std::int64_t begin, std::int64_t end) {
  SENTCORE_BEST_ISA_WITH_BF16(run_rows(args, weight, norm_bias, buffer, begin, end));
}
void run_gradient(const EmbeddingGradient& args, const EmbeddingPlaces& places, std::int64_t row, std::int64_t column,
                  std::int64_t columns, void* buffer) {
  SENTCORE_BEST_ISA_WITH_BF16(run_gradient(args, places, row, column, columns, buffer));
}

}  // namespace

void embedding_layer_norm_cpu(const EmbeddingLayerNorm& args) {
  cpu::for_rows(args.tokens, args.hidden, [&](std::int64_t begin, std::int64_t end) {
    const cpu::RowBuffers buffers(3, args.hidden, args.dtype);
    const void* weight = cpu::widen_into(buffers, 0, args.weight_dtype, args.weight, args.hidden);
    const void* norm_bias = cpu::widen_into(buffers, 1, args.weight_dtype, args.norm_bias, args.hidden);
    run_rows(args, weight, norm_bias, buffers.get<void>(2), begin, end);
  });
}

void embedding_gradient_cpu(const EmbeddingGradient& args) {
  // Places sorted by id, by counting.
  std::vector<std::int64_t> first(static_cast<std::size_t>(args.rows) + 1), next, order(args.tokens);
  for (std::int64_t i = 0; i < args.tokens; ++i) ++first[args.ids[i] + 1];
  for (std::int64_t r = 0; r < args.rows; ++r) first[r + 1] += first[r];
  next = first;
  for (std::int64_t i = 0; i < args.tokens; ++i) order[next[args.ids[i]]++] = i;

  const EmbeddingPlaces places{first.data(), order.data()};
  const std::int64_t width = args.rows < kFewRows ? std::min(kColumnsOfFewRows, args.hidden) : args.hidden;
  const std::int64_t pieces = ceil_div(args.hidden, width);
  const auto run = [&](std::int64_t begin, std::int64_t end) {
    const cpu::RowBuffers buffers(1, width, args.dtype);
    for (std::int64_t item = begin; item < end; ++item) {
      const std::int64_t row = item % args.rows, column = item / args.rows * width;
      run_gradient(args, places, row, column, std::min(width, args.hidden - column), buffers.get<void>(0));
    }
  };
  // A table of few rows has many tokens to each.
  if (pieces > 1) return cpu::parallel_for(args.rows * pieces, 1, run);
  cpu::for_rows(args.rows, args.hidden, run);
}

}  // namespace sentcore
