// Rows of x with panels of the weight by matrix tiles; int8_linear_cpu.cpp compiles it. Its integers are those of the
// other instruction sets, and so are its bits.

// clang-format off: in this order
#include "common/simd.inl"
#include "common/tiles.inl"
#include "common/tile_panels.inl"
#include "ops/int8_linear/int8_linear_cpu_activations.inl"
#include "ops/int8_linear/int8_linear_cpu_rows.inl"
#include "ops/int8_linear/int8_linear_cpu_results.inl"
// clang-format on

namespace sentcore {
namespace SENTCORE_ISA {
namespace {

// Sums of a block of rows on their way out.
template <typename T, Int8Activation activation>
struct FinishBytes {
  const Int8Linear* args;
  const Int8Rows* rows;
  std::int64_t first_row, first_panel;

  const std::int32_t* sums;
  const std::uint8_t* panel;
  T* out;
  std::int64_t row, left, each, inside;
  Vec<float> scale[2], bias[2];

  SENTCORE_INLINE void begin(std::int64_t index, std::int64_t first_of_rows, std::int64_t count,
                             std::int64_t rows_of_step, const void* block) {
    const std::int64_t first = (first_panel + index) * kInt8Columns;
    sums = static_cast<const std::int32_t*>(block);
    panel = args->weight + first * steps_of(args->depth) * kInt8Depth;
    out = static_cast<T*>(args->out) + (first_row + first_of_rows) * args->columns + first;
    row = first_of_rows, left = count, each = rows_of_step;
    inside = args->columns - first < kInt8Columns ? args->columns - first : kInt8Columns;
    if (row > 0) return;  // the same panel's
    const PanelColumns columns = columns_of(*args, first, inside);
    for (int j = 0; j < 2; ++j) scale[j] = load(columns.scale + 16 * j), bias[j] = load(columns.bias + 16 * j);
  }
  SENTCORE_INLINE void one() {
    const Vec<float> low = result_of<T, activation>(load(sums), *rows, row, panel, 0, scale[0], bias[0]);
    const Vec<float> high = result_of<T, activation>(load(sums + 16), *rows, row, panel, 16, scale[1], bias[1]);
    if (inside == kInt8Columns) {
      store_narrow(out, low);
      store_narrow(out + 16, high);
    } else {
      T some[kInt8Columns];
      store_narrow(some, low);
      store_narrow(some + 16, high);
      for (std::int64_t j = 0; j < inside; ++j) out[j] = some[j];
    }
    sums += kInt8Columns;
    out += args->columns;
    ++row, --left;
  }
  SENTCORE_INLINE void step() {
    for (std::int64_t i = 0; i < each && left > 0; ++i) one();
  }
  SENTCORE_INLINE void rest() {
    while (left > 0) one();
  }
};

template <typename T, Int8Activation activation>
inline void run_panels(const Int8Linear& args, const Int8Rows& rows, std::int64_t first_row, std::int64_t first_panel,
                       const TilePanels& panels) {
  FinishBytes<T, activation> finish = {};
  finish.args = &args, finish.rows = &rows, finish.first_row = first_row, finish.first_panel = first_panel;
  multiply_panels<ByteTiles>(panels, finish);
}

inline std::int64_t tile_memory_of(std::int64_t rows, std::int64_t depth) {
  return TilePanels::bytes_of(rows, steps_of(depth) * kInt8Depth) + beside_words(rows);
}

template <typename T>
inline void run_rows(const Int8Linear& args, std::int64_t first_row, std::int64_t last_row, std::int64_t first_panel,
                     std::int64_t last_panel, void* memory) {
  const std::int64_t count = last_row - first_row, steps = steps_of(args.depth), bytes = steps * kInt8Depth;
  TilePanels panels = {};
  panels.count = count;
  panels.depth_bytes = bytes;
  panels.panels = last_panel - first_panel;
  panels.weight = reinterpret_cast<const char*>(args.weight) + first_panel * bytes * kInt8Columns;
  panels.padding = 128;
  panels.memory = static_cast<char*>(memory);
  Int8Rows rows;
  rows.words = reinterpret_cast<std::int32_t*>(panels.rows());
  rows.width = steps;
  rows.stride = tile_stride(bytes) / 4;
  cut_beside_words(rows, count, static_cast<char*>(memory) + TilePanels::bytes_of(count, bytes));
  const T* x = static_cast<const T*>(args.x) + first_row * args.depth;
  for (std::int64_t r = 0; r < whole_tiles(count); ++r) {
    if (r < count) round_row(x + r * args.depth, args.depth, rows, r);
    const std::int64_t filled = r < count ? bytes : 0;
    __builtin_memset(panels.rows() + r * rows.stride * 4 + filled, 0,
                     static_cast<std::size_t>(rows.stride * 4 - filled));
  }
  switch (args.activation) {
    case Int8Activation::none:
      return run_panels<T, Int8Activation::none>(args, rows, first_row, first_panel, panels);
    case Int8Activation::relu:
      return run_panels<T, Int8Activation::relu>(args, rows, first_row, first_panel, panels);
    case Int8Activation::gelu:
      return run_panels<T, Int8Activation::gelu>(args, rows, first_row, first_panel, panels);
    case Int8Activation::gelu_tanh:
      return run_panels<T, Int8Activation::gelu_tanh>(args, rows, first_row, first_panel, panels);
  }
}

// `memory` [tile_memory_of(rows, depth)] begins on a cache line.
inline void run_tiles(const Int8Linear& args, std::int64_t first_row, std::int64_t last_row, std::int64_t first_panel,
                      std::int64_t last_panel, void* memory) {
  if (args.dtype == Dtype::bfloat16) {
    return run_rows<cpu::BFloat16>(args, first_row, last_row, first_panel, last_panel, memory);
  }
  run_rows<float>(args, first_row, last_row, first_panel, last_panel, memory);
}

}  // namespace
}  // namespace SENTCORE_ISA
}  // namespace sentcore
