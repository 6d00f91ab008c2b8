// CPU kernels of segment_pooling; segment_pooling.h says what each tensor is.

#include <algorithm>
#include <cstdint>

#include "common/cpu.h"
#include "common/row_tasks.h"
#include "ops/segment_pooling/segment_pooling.h"

#define SENTCORE_ISA_WITH_BF16
#define SENTCORE_ISA_SOURCE "ops/segment_pooling/segment_pooling_cpu_kernel.inl"
#include "common/for_each_isa.h"

namespace sentcore {
namespace {

constexpr std::int64_t kMostSlots = 64;      // shares of the work; more than threads, so that idle threads find some
constexpr std::int64_t kFewSentences = 16;   // then their columns are shared out too
constexpr std::int64_t kColumnsOfFew = 128;  // a multiple of what is summed in registers at a time

void run_piece(const SegmentPooling& args, std::int64_t sentence, std::int64_t column, std::int64_t columns) {
  SENTCORE_BEST_ISA_WITH_BF16(run_piece(args, sentence, column, columns));
}
void run_normalize(const SegmentPooling& args, std::int64_t sentence) {
  SENTCORE_BEST_ISA_WITH_BF16(run_normalize(args, sentence));
}
void run_gradient(const SegmentPoolingBackward& args, std::int64_t sentence, std::int64_t column, std::int64_t columns,
                  void* grad, void* highest) {
  SENTCORE_BEST_ISA_WITH_BF16(run_gradient(args, sentence, column, columns, grad, highest));
}

std::int64_t columns_of_piece(const SegmentPooling& args) {
  return args.sentences < kFewSentences ? std::min(kColumnsOfFew, args.hidden) : args.hidden;
}

// run(sentence, first column, columns, buffers of a thread) for all columns of all sentences.
template <typename Run>
void for_pieces(const SegmentPooling& args, const Run& run) {
  if (args.sentences == 0 || args.hidden == 0) return;
  const std::int64_t width = columns_of_piece(args);
  const std::int64_t pieces = ceil_div(args.hidden, width), items = args.sentences * pieces;
  // Sentences of a batch come by length, so each share takes every n-th item and not a run of them.
  const std::int64_t slots = std::min(items, kMostSlots);
  const std::int64_t cost = args.cu_seqlens[args.sentences] * args.hidden / slots;
  const std::int64_t grain = std::max<std::int64_t>(1, cpu::kElementsPerTask / std::max<std::int64_t>(1, cost));
  cpu::parallel_for(slots, grain, [&](std::int64_t begin, std::int64_t end) {
    const cpu::RowBuffers buffers(2, width, args.dtype);
    for (std::int64_t slot = begin; slot < end; ++slot) {
      for (std::int64_t item = slot; item < items; item += slots) {
        const std::int64_t column = item % pieces * width;
        run(item / pieces, column, std::min(width, args.hidden - column), buffers);
      }
    }
  });
}

}  // namespace

void segment_pooling_cpu(const SegmentPooling& args) {
  for_pieces(args, [&](std::int64_t sentence, std::int64_t column, std::int64_t columns, const cpu::RowBuffers&) {
    run_piece(args, sentence, column, columns);
    if (args.normalize && columns == args.hidden) run_normalize(args, sentence);
  });
  if (!args.normalize || (args.hidden > 0 && columns_of_piece(args) == args.hidden)) return;
  for (std::int64_t sentence = 0; sentence < args.sentences; ++sentence) run_normalize(args, sentence);
}

void segment_pooling_backward_cpu(const SegmentPoolingBackward& args) {
  for_pieces(args.given,
             [&](std::int64_t sentence, std::int64_t column, std::int64_t columns, const cpu::RowBuffers& buffers) {
               run_gradient(args, sentence, column, columns, buffers.get<void>(0), buffers.get<void>(1));
             });
}

}  // namespace sentcore
