// The gradient of a linear layer's weight; weight_gradient.h says what each tensor is.

#include <algorithm>
#include <cstdint>

#include "common/cpu.h"
#include "common/scratch.h"
#include "layers/weight_gradient.h"

namespace sentcore {
namespace {

struct GradientTile {
  int rows;
  std::int64_t columns;
};

struct PackedStrips {
  const float* x;  // [tokens, stride], of which `columns`
  std::int64_t stride, columns;
  std::int64_t first, strips;  // the column where the first strip begins; how many
  std::int64_t tokens;
  float* packed;  // [strips, tokens, a tile's rows or columns]
};

}  // namespace
}  // namespace sentcore

#define SENTCORE_ISA_SOURCE "layers/weight_gradient_cpu_kernel.inl"
#include "common/for_each_isa.h"

namespace sentcore {
namespace {

constexpr std::int64_t kTokensOfBlock = 480;  // at most: of a tile's rows and columns they stay in L1 and L2
constexpr std::int64_t kTilesOfTask = 24;     // of rows, whose gradients stay in L2 while all columns go past
constexpr std::int64_t kTasksOfThread = 3;

GradientTile gradient_tile() { SENTCORE_BEST_ISA(gradient_tile()); }
void pack_columns(const PackedStrips& args) { SENTCORE_BEST_ISA(pack_columns(args)); }
void pack_rows(const PackedStrips& args) { SENTCORE_BEST_ISA(pack_rows(args)); }
void multiply_gradients(const float* grad, const float* x, std::int64_t tokens, bool first, int rows,
                        std::int64_t columns, float* const* out, const char* ahead, std::int64_t ahead_step) {
  SENTCORE_BEST_ISA(multiply_gradients(grad, x, tokens, first, rows, columns, out, ahead, ahead_step));
}

// Some tiles of rows with some strips of columns.
struct Part {
  std::int64_t first_tile, last_tile, first_strip, last_strip;
};

void run(const WeightGradient& args, const Part& part, const float* strips, float* rows_packed) {
  const GradientTile tile = gradient_tile();
  const std::int64_t tokens = args.tokens, blocks = ceil_div(tokens, kTokensOfBlock);
  pack_rows({args.grad, args.rows, args.rows, part.first_tile * tile.rows, part.last_tile - part.first_tile, tokens,
             rows_packed});
  for (std::int64_t b = 0; b < blocks; ++b) {
    const std::int64_t begin = tokens * b / blocks, count = tokens * (b + 1) / blocks - begin;
    for (std::int64_t s = part.first_strip; s < part.last_strip; ++s) {
      const float* const strip = strips + (s * tokens + begin) * tile.columns;
      const std::int64_t column = s * tile.columns, columns = std::min(tile.columns, args.columns - column);
      const char* ahead = reinterpret_cast<const char*>(strip + tokens * tile.columns);
      const std::int64_t ahead_step = ceil_div<std::int64_t>(tile.columns * static_cast<std::int64_t>(sizeof(float)),
                                                             part.last_tile - part.first_tile);
      for (std::int64_t i = part.first_tile; i < part.last_tile; ++i) {
        const std::int64_t row = i * tile.rows;
        const int rows = static_cast<int>(std::min<std::int64_t>(tile.rows, args.rows - row));
        float* out[8] = {};
        bool wanted = false;
        for (int r = 0; r < rows; ++r) {
          float* const whole = args.out[(row + r) / args.rows_of_part];
          if (whole != nullptr) out[r] = whole + (row + r) % args.rows_of_part * args.columns + column;
          wanted = wanted || whole != nullptr;
        }
        if (!wanted) continue;
        multiply_gradients(rows_packed + ((i - part.first_tile) * tokens + begin) * tile.rows, strip, count, b == 0,
                           rows, columns, out, ahead, ahead_step);
        ahead += count * ahead_step;
      }
    }
  }
}

}  // namespace

void weight_gradient_cpu(const WeightGradient& args) {
  const GradientTile tile = gradient_tile();
  const std::int64_t tokens = args.tokens;
  const std::int64_t tiles = ceil_div<std::int64_t>(args.rows, tile.rows),
                     strips = ceil_div(args.columns, tile.columns);
  const cpu::Scratch packed(strips * tokens * tile.columns);
  float* const columns = packed.get();
  cpu::parallel_for(strips, 1, [&](std::int64_t begin, std::int64_t end) {
    pack_columns({args.x, args.columns, args.columns, begin * tile.columns, end - begin, tokens,
                  columns + begin * tokens * tile.columns});
  });
  // Groups of tiles as large as all threads find some; columns are shared out where that is not enough.
  const std::int64_t wanted = kTasksOfThread * cpu::num_threads();
  const std::int64_t groups = ceil_div(tiles, kTilesOfTask);
  const std::int64_t shares = std::clamp<std::int64_t>(ceil_div(wanted, groups), 1, strips);
  const std::int64_t most = ceil_div(tiles, groups);
  cpu::parallel_for(groups * shares, 1, [&](std::int64_t begin, std::int64_t end) {
    const cpu::Scratch rows(most * tokens * tile.rows);
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t group = i / shares, share = i % shares;
      run(args,
          {tiles * group / groups, tiles * (group + 1) / groups, strips * share / shares,
           strips * (share + 1) / shares},
          columns, rows.get());
    }
  });
}

}  // namespace sentcore
