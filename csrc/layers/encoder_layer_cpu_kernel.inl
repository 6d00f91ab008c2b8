// What encoder_layer does beside the op rooms' kernels, on one instruction set; encoder_layer_cpu.cpp compiles it for
// each.

// clang-format off: in this order
#include "common/simd.inl"
#include "common/activations.inl"
#include "common/product.inl"
#include "common/rows.inl"
// clang-format on

namespace sentcore {
namespace SENTCORE_ISA {
namespace {

// ---- weights as packed_linear's kernel reads them ----

// A panel [K, 32] of 32 outputs from `first` on; 0 beyond R.
inline void pack_panel(const StackedWeight& weight, std::int64_t first, float* panel) {
  constexpr int L = kLanes<float>;
  for (std::int64_t group = 0; group < kPanelColumns; group += L) {
    const float* rows[L];
    for (int i = 0; i < L; ++i) {
      const std::int64_t r = first + group + i;
      rows[i] = r < weight.rows ? weight.row(r) : nullptr;
    }
    std::int64_t k = 0;
    for (; k + L <= weight.depth; k += L) {
      Vec<float> square[L];
#pragma GCC unroll 16
      for (int i = 0; i < L; ++i) square[i] = rows[i] != nullptr ? load(rows[i] + k) : Vec<float>{};
      transpose<float>(square);
#pragma GCC unroll 16
      for (int i = 0; i < L; ++i) store(panel + (k + i) * kPanelColumns + group, square[i]);
    }
    for (; k < weight.depth; ++k) {
      for (int i = 0; i < L; ++i) panel[k * kPanelColumns + group + i] = rows[i] != nullptr ? rows[i][k] : 0.0f;
    }
  }
}

// Rows [begin, end) of the weight in all panels [R, 32] of its transpose, each of 32 inputs; 0 beyond K.
inline void pack_transposed_rows(const StackedWeight& weight, std::int64_t begin, std::int64_t end, float* packed) {
  for (std::int64_t r = begin; r < end; ++r) {
    const float* row = weight.row(r);
    float* target = packed + r * kPanelColumns;
    std::int64_t k = 0;
    for (; k + kPanelColumns <= weight.depth; k += kPanelColumns, target += weight.rows * kPanelColumns) {
      __builtin_memcpy(target, row + k, kPanelColumns * sizeof(float));
    }
    if (k == weight.depth) continue;
    __builtin_memset(target, 0, kPanelColumns * sizeof(float));
    __builtin_memcpy(target, row + k, static_cast<std::size_t>(weight.depth - k) * sizeof(float));
  }
}

// ---- the activation ----

struct Activated {
  Vec<float> value, slope;
};

template <LayerActivation activation>
SENTCORE_INLINE Activated activated(Vec<float> x) {
  if constexpr (activation == LayerActivation::relu) {
    return {larger<float>(Vec<float>{}, x), x > 0.0f ? splat(1.0f) : Vec<float>{}};
  } else if constexpr (activation == LayerActivation::gelu) {
    const Vec<float> cdf = normal_cdf<float>(x);
    return {x * cdf, gelu_erf_grad<float>(x, cdf)};
  } else {
    return {gelu_tanh<float>(x), gelu_tanh_grad<float>(x)};
  }
}

template <LayerActivation activation>
struct ActivateStep {
  const float* pre;
  float* inner;

  SENTCORE_INLINE void operator()(std::int64_t j, std::int64_t count, int) {
    store_at(inner + j, activated<activation>(load_at(pre + j, count)).value, count);
  }
};

template <LayerActivation activation>
struct ActivateBackwardStep {
  const float* pre;
  const float* grad_inner;
  float* inner;
  float* grad_pre;

  SENTCORE_INLINE void operator()(std::int64_t j, std::int64_t count, int) {
    const Activated found = activated<activation>(load_at(pre + j, count));
    store_at(grad_pre + j, load_at(grad_inner + j, count) * found.slope, count);
    store_at(inner + j, found.value, count);
  }
};

template <template <LayerActivation> class Step, typename... Pointers>
SENTCORE_INLINE void over_elements(LayerActivation activation, std::int64_t count, Pointers... pointers) {
  if (activation == LayerActivation::relu) {
    Step<LayerActivation::relu> step{pointers...};
    over_row<float>(count, step);
  } else if (activation == LayerActivation::gelu) {
    Step<LayerActivation::gelu> step{pointers...};
    over_row<float>(count, step);
  } else {
    Step<LayerActivation::gelu_tanh> step{pointers...};
    over_row<float>(count, step);
  }
}

inline void activate(LayerActivation activation, std::int64_t count, const float* pre, float* inner) {
  over_elements<ActivateStep>(activation, count, pre, inner);
}
inline void activate_backward(LayerActivation activation, std::int64_t count, const float* pre, const float* grad_inner,
                              float* inner, float* grad_pre) {
  over_elements<ActivateBackwardStep>(activation, count, pre, grad_inner, inner, grad_pre);
}

// a += b.
struct AddStep {
  float* a;
  const float* b;

  SENTCORE_INLINE void operator()(std::int64_t j, std::int64_t count, int) {
    store_at(a + j, load_at(a + j, count) + load_at(b + j, count), count);
  }
};
inline void add_to(float* a, const float* b, std::int64_t count) {
  AddStep step{a, b};
  over_row<float>(count, step);
}

}  // namespace
}  // namespace SENTCORE_ISA
}  // namespace sentcore
