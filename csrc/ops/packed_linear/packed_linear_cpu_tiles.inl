// Rows of bfloat16 with panels of the weight by matrix tiles; packed_linear_cpu.cpp compiles it.

// clang-format off: in this order
#include "common/simd.inl"
#include "common/activations.inl"
#include "common/tiles.inl"
#include "common/tile_panels.inl"
#include "ops/packed_linear/packed_linear_cpu_activations.inl"
// clang-format on

namespace sentcore {
namespace SENTCORE_ISA {
namespace {

// Sums of a block of rows on their way out: bias, activation, rounding.
template <PackedActivation activation>
struct FinishBFloats {
  typedef cpu::BFloat16 T;
  const PackedLinear* args;
  const PackedLinearTask* task;
  const float* sums;
  T* out;
  std::int64_t left, each, columns;
  Vec<float> bias[2];

  SENTCORE_INLINE void begin(std::int64_t panel, std::int64_t row, std::int64_t rows, std::int64_t rows_of_step,
                             const void* block) {
    const std::int64_t first = (task->first_panel + panel) * kPanelColumns;
    sums = static_cast<const float*>(block);
    out = static_cast<T*>(args->out) + (task->first_row + row) * args->columns + first;
    left = rows, each = rows_of_step;
    columns = args->columns - first < kPanelColumns ? args->columns - first : kPanelColumns;
    bias[0] = bias[1] = Vec<float>{};
    if (args->bias == nullptr) return;
    T some[kPanelColumns] = {};
    __builtin_memcpy(some, static_cast<const T*>(args->bias) + first, static_cast<std::size_t>(columns) * sizeof(T));
    bias[0] = load_wide(some), bias[1] = load_wide(some + 16);
  }
  SENTCORE_INLINE void one() {
    const Vec<float> low = activated<T>(activation, load(sums) + bias[0]);
    const Vec<float> high = activated<T>(activation, load(sums + 16) + bias[1]);
    if (columns == kPanelColumns) {
      store_narrow(out, low);
      store_narrow(out + 16, high);
    } else {
      T some[kPanelColumns];
      store_narrow(some, low);
      store_narrow(some + 16, high);
      for (std::int64_t j = 0; j < columns; ++j) out[j] = some[j];
    }
    sums += kPanelColumns;
    out += args->columns;
    --left;
  }
  SENTCORE_INLINE void step() {
    for (std::int64_t i = 0; i < each && left > 0; ++i) one();
  }
  SENTCORE_INLINE void rest() {
    while (left > 0) one();
  }
};

template <PackedActivation activation>
inline void run_panels(const PackedLinear& args, const PackedLinearTask& task, const TilePanels& panels) {
  FinishBFloats<activation> finish = {};
  finish.args = &args, finish.task = &task;
  multiply_panels<BFloatTiles>(panels, finish);
}

inline std::int64_t tile_bytes_of(const PackedLinear& args, const PackedLinearTask& task) {
  return TilePanels::bytes_of(task.last_row - task.first_row, 2 * args.depth);
}

// `memory` [tile_bytes_of(args, task)] begins on a cache line.
inline void run_tiles(const PackedLinear& args, const PackedLinearTask& task, void* memory) {
  const std::int64_t count = task.last_row - task.first_row, bytes = 2 * args.depth, stride = tile_stride(bytes);
  TilePanels panels = {};
  panels.count = count;
  panels.depth_bytes = bytes;
  panels.panels = task.last_panel - task.first_panel;
  panels.weight = static_cast<const char*>(args.weight) + task.first_panel * bytes * kPanelColumns;
  panels.memory = static_cast<char*>(memory);
  const char* const x = static_cast<const char*>(args.x) + task.first_row * bytes;
  for (std::int64_t r = 0; r < whole_tiles(count); ++r) {
    char* const row = panels.rows() + r * stride;
    const std::int64_t copied = r < count ? bytes : 0;
    if (copied > 0) __builtin_memcpy(row, x + r * bytes, static_cast<std::size_t>(copied));
    __builtin_memset(row + copied, 0, static_cast<std::size_t>(stride - copied));
  }
  switch (args.activation) {
    case PackedActivation::none:
      return run_panels<PackedActivation::none>(args, task, panels);
    case PackedActivation::relu:
      return run_panels<PackedActivation::relu>(args, task, panels);
    case PackedActivation::gelu:
      return run_panels<PackedActivation::gelu>(args, task, panels);
    case PackedActivation::gelu_tanh:
      return run_panels<PackedActivation::gelu_tanh>(args, task, panels);
  }
}

}  // namespace
}  // namespace SENTCORE_ISA
}  // namespace sentcore
