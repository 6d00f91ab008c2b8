// encoder_layer on a CPU; encoder_layer.h says what each tensor is.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "common/cpu.h"
#include "common/philox.cuh"
#include "common/row_tasks.h"
#include "common/scratch.h"
#include "layers/encoder_layer.h"
#include "layers/weight_gradient.h"
#include "ops/add_layer_norm/add_layer_norm.h"
#include "ops/packed_linear/packed_linear.h"
#include "ops/varlen_attention/varlen_attention.h"

#define SENTCORE_ISA_SOURCE "layers/encoder_layer_cpu_kernel.inl"
#include "common/for_each_isa.h"

namespace sentcore {
namespace {

constexpr std::int64_t kBytesOfBlock = 1 << 19;  // of F columns of a block's rows, which stay in L2
constexpr std::int64_t kFewestRows = 48;         // of a block: each reads all weights
constexpr std::int64_t kMostRows = 128;
constexpr std::int64_t kRowsPackedAtOnce = 32;
constexpr std::int64_t kAddedAtOnce = 1 << 14;  // elements

void pack_panel(const StackedWeight& weight, std::int64_t first, float* panel) {
  SENTCORE_BEST_ISA(pack_panel(weight, first, panel));
}
void pack_transposed_rows(const StackedWeight& weight, std::int64_t begin, std::int64_t end, float* packed) {
  SENTCORE_BEST_ISA(pack_transposed_rows(weight, begin, end, packed));
}
void activate(LayerActivation activation, std::int64_t count, const float* pre, float* inner) {
  SENTCORE_BEST_ISA(activate(activation, count, pre, inner));
}
void activate_backward(LayerActivation activation, std::int64_t count, const float* pre, const float* grad_inner,
                       float* inner, float* grad_pre) {
  SENTCORE_BEST_ISA(activate_backward(activation, count, pre, grad_inner, inner, grad_pre));
}
void add_to(float* a, const float* b, std::int64_t count) { SENTCORE_BEST_ISA(add_to(a, b, count)); }

// ---- products ----

std::int64_t padded(std::int64_t columns) { return ceil_div(columns, kPanelColumns) * kPanelColumns; }

// What packing any of the layer's weights, or its transpose, takes; in floats.
std::int64_t packed_size(const StackedWeight& weight) {
  return std::max(padded(weight.rows) * weight.depth, padded(weight.depth) * weight.rows);
}

void pack(const StackedWeight& weight, float* target) {
  cpu::parallel_for(ceil_div(weight.rows, kPanelColumns), 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t p = begin; p < end; ++p) {
      pack_panel(weight, p * kPanelColumns, target + p * weight.depth * kPanelColumns);
    }
  });
}

void pack_transposed(const StackedWeight& weight, float* target) {
  cpu::parallel_for(weight.rows, kRowsPackedAtOnce,
                    [&](std::int64_t begin, std::int64_t end) { pack_transposed_rows(weight, begin, end, target); });
}

// out [rows, columns] = x [rows, depth] * packed + bias.
void multiply(std::int64_t rows, std::int64_t depth, std::int64_t columns, const float* x, const float* packed,
              const float* bias, float* out) {
  packed_linear_cpu({rows, depth, columns, Dtype::float32, PackedActivation::none, x, packed, bias, out});
}

// run(first, count) for blocks of rows whose F columns stay near, a thread each.
template <typename Run>
void for_blocks(std::int64_t blocks, std::int64_t rows, const Run& run) {
  cpu::parallel_for(blocks, 1, [&](std::int64_t begin, std::int64_t end) {
    cpu::alone([&] {
      for (std::int64_t i = begin; i < end; ++i) {
        run(rows * i / blocks, rows * (i + 1) / blocks - rows * i / blocks);
      }
    });
  });
}

std::int64_t blocks_of(const TrainedLayer& given) {
  const std::int64_t fitting = kBytesOfBlock / (given.inner * static_cast<std::int64_t>(sizeof(float)));
  const std::int64_t most = std::clamp(fitting, kFewestRows, kMostRows);
  const std::int64_t blocks = ceil_div(given.tokens, most), threads = cpu::num_threads();
  return std::min(given.tokens, ceil_div(blocks, threads) * threads);
}

// ---- attention and LayerNorm as their rooms take them ----

VarlenAttention attention_of(const TrainedLayer& given, const float* qkv) {
  VarlenAttention attention{};
  attention.sentences = given.sentences;
  attention.tokens_q = attention.tokens_k = given.tokens;
  attention.heads = static_cast<int>(given.heads);
  attention.size = static_cast<int>(given.hidden / given.heads);
  attention.max_seqlen_q = attention.max_seqlen_k = static_cast<int>(std::min(given.max_seqlen, given.tokens));
  attention.dropout_columns = ceil_div<std::int64_t>(given.max_seqlen, 4) * 4;
  attention.dtype = Dtype::float32;
  attention.exact_scale = 1.0 / std::sqrt(static_cast<double>(attention.size));
  attention.scale = static_cast<float>(attention.exact_scale);
  attention.window_left = attention.window_right = -1;
  attention.q = qkv;
  attention.k = qkv + given.hidden;
  attention.v = qkv + 2 * given.hidden;
  attention.q_stride = attention.kv_stride = 3 * given.hidden;
  attention.cu_seqlens_q = attention.cu_seqlens_k = given.cu_seqlens;
  attention.seed = given.attention_seed;
  attention.dropout_threshold = dropout_threshold(given.attention_dropout_p);
  attention.exact_keep_scale = 1.0 / (1.0 - given.attention_dropout_p);
  attention.keep_scale = static_cast<float>(attention.exact_keep_scale);
  return attention;
}

AddLayerNormForward norm_of(const TrainedLayer& given, const std::int64_t* seed, const float* x, const float* residual,
                            const float* weight, const float* bias) {
  AddLayerNormForward norm{};
  norm.rows = given.tokens;
  norm.hidden = given.hidden;
  norm.dtype = norm.weight_dtype = Dtype::float32;
  norm.dropout_p = seed == nullptr ? 0.0 : given.hidden_dropout_p;
  norm.eps = given.eps;
  norm.x = x;
  norm.residual = residual;
  norm.weight = weight;
  norm.norm_bias = bias;
  norm.seed = seed;
  return norm;
}

// Without dropout the gradient of what is added is that of the residual, and `grad_residual` may be null.
void norm_backward(const TrainedLayer& given, const std::int64_t* seed, const float* grad_out, const float* sums,
                   const float* mean, const float* rstd, const float* weight, float* grad_x, float* grad_residual,
                   float* grad_weight, float* grad_bias, float* grad_x_bias) {
  AddLayerNormBackward norm{};
  norm.rows = given.tokens;
  norm.hidden = given.hidden;
  norm.groups = add_layer_norm_groups_cpu(given.tokens);
  norm.dtype = norm.weight_dtype = Dtype::float32;
  norm.dropout_p = seed == nullptr ? 0.0 : given.hidden_dropout_p;
  norm.grad_out = grad_out;
  norm.total = sums;
  norm.mean = mean;
  norm.rstd = rstd;
  norm.weight = weight;
  norm.seed = seed;
  norm.grad_x = seed == nullptr ? nullptr : grad_x;
  norm.grad_residual = seed == nullptr ? grad_x : grad_residual;
  norm.grad_weight = grad_weight;
  norm.grad_norm_bias = grad_bias;
  norm.grad_x_bias = grad_x_bias;
  const cpu::Scratch partial(3 * norm.groups * given.hidden);
  norm.partial = partial.get();
  add_layer_norm_backward_cpu(norm);
}

void add_all(float* a, const float* b, std::int64_t count) {
  cpu::parallel_for(count, kAddedAtOnce,
                    [&](std::int64_t begin, std::int64_t end) { add_to(a + begin, b + begin, end - begin); });
}

// grad [tokens, rows] and x [tokens, columns] -> out [rows, columns], where somebody asks for it.
void weight_gradient(std::int64_t tokens, std::int64_t rows, std::int64_t columns, const float* grad, const float* x,
                     float* out) {
  if (out != nullptr) weight_gradient_cpu({tokens, rows, columns, grad, x, {out}, rows});
}

// [rows, columns] -> [columns], in groups of rows that do not depend on the number of threads.
void sum_rows(std::int64_t rows, std::int64_t columns, const float* x, float* out) {
  const std::int64_t groups = cpu::sum_groups(rows);
  const cpu::Scratch partial(groups * columns);
  cpu::parallel_for(groups, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t group = begin; group < end; ++group) {
      float* const sums = partial.get() + group * columns;
      std::fill(sums, sums + columns, 0.0f);
      for (std::int64_t r = rows * group / groups; r < rows * (group + 1) / groups; ++r) {
        add_to(sums, x + r * columns, columns);
      }
    }
  });
  cpu::add_groups(Dtype::float32, {columns, groups, partial.get(), {out, nullptr, nullptr}});
}

}  // namespace

void encoder_layer_forward_cpu(const EncoderLayerForward& args) {
  const TrainedLayer& given = args.given;
  const std::int64_t tokens = given.tokens, hidden = given.hidden, inner = given.inner;
  const cpu::Scratch first(std::max({packed_size(given.qkv), packed_size(given.output), packed_size(given.up)}));
  const cpu::Scratch second(packed_size(given.down)), product(tokens * hidden);

  pack(given.qkv, first.get());
  multiply(tokens, hidden, 3 * hidden, given.x, first.get(), args.qkv_bias, args.qkv);
  varlen_attention_forward_cpu({attention_of(given, args.qkv), args.context, args.lse});
  pack(given.output, first.get());
  multiply(tokens, hidden, hidden, args.context, first.get(), args.output_bias, product.get());
  AddLayerNormForward norm =
      norm_of(given, given.first_seed, product.get(), given.x, given.first_norm, args.first_norm_bias);
  norm.out = args.normed, norm.total = args.first_sums, norm.mean = args.first_mean, norm.rstd = args.first_rstd;
  add_layer_norm_forward_cpu(norm);

  pack(given.up, first.get());
  pack(given.down, second.get());
  const std::int64_t blocks = blocks_of(given), most = ceil_div(tokens, blocks);
  for_blocks(blocks, tokens, [&](std::int64_t begin, std::int64_t rows) {
    const cpu::Scratch activated(most * inner);
    float* const pre = args.pre + begin * inner;
    multiply(rows, hidden, inner, args.normed + begin * hidden, first.get(), args.up_bias, pre);
    activate(given.activation, rows * inner, pre, activated.get());
    multiply(rows, inner, hidden, activated.get(), second.get(), args.down_bias, product.get() + begin * hidden);
  });
  norm = norm_of(given, given.second_seed, product.get(), args.normed, given.second_norm, args.second_norm_bias);
  norm.out = args.out, norm.total = args.second_sums, norm.mean = args.second_mean, norm.rstd = args.second_rstd;
  add_layer_norm_forward_cpu(norm);
}

void encoder_layer_backward_cpu(const EncoderLayerBackward& args) {
  const TrainedLayer& given = args.given;
  const std::int64_t tokens = given.tokens, hidden = given.hidden, inner = given.inner;
  const cpu::Scratch first(std::max({packed_size(given.qkv), packed_size(given.output), packed_size(given.down)}));
  const cpu::Scratch second(packed_size(given.up));
  const cpu::Scratch grad_fed(tokens * hidden), grad_normed(tokens * hidden), grad_attended(tokens * hidden);
  const bool dropped = given.first_seed != nullptr;
  const cpu::Scratch residual(dropped ? tokens * hidden : 0);

  norm_backward(given, given.second_seed, args.grad_out, args.second_sums, args.second_mean, args.second_rstd,
                given.second_norm, grad_fed.get(), residual.get(), args.grad_second_norm, args.grad_second_norm_bias,
                args.grad_down_bias);
  {
    const cpu::Scratch grad_pre(tokens * inner), activated(tokens * inner);
    const float* const grad_sums = dropped ? residual.get() : grad_fed.get();
    pack_transposed(given.down, first.get());
    pack_transposed(given.up, second.get());
    const std::int64_t blocks = blocks_of(given), most = ceil_div(tokens, blocks);
    for_blocks(blocks, tokens, [&](std::int64_t begin, std::int64_t rows) {
      const cpu::Scratch grad_inner(most * inner);
      float* const grad = grad_normed.get() + begin * hidden;
      multiply(rows, hidden, inner, grad_fed.get() + begin * hidden, first.get(), nullptr, grad_inner.get());
      activate_backward(given.activation, rows * inner, args.pre + begin * inner, grad_inner.get(),
                        activated.get() + begin * inner, grad_pre.get() + begin * inner);
      multiply(rows, inner, hidden, grad_pre.get() + begin * inner, second.get(), nullptr, grad);
      add_to(grad, grad_sums + begin * hidden, rows * hidden);
    });
    sum_rows(tokens, inner, grad_pre.get(), args.grad_up_bias);
    weight_gradient(tokens, hidden, inner, grad_fed.get(), activated.get(), args.grad_down);
    weight_gradient(tokens, inner, hidden, grad_pre.get(), args.normed, args.grad_up);
  }

  norm_backward(given, given.first_seed, grad_normed.get(), args.first_sums, args.first_mean, args.first_rstd,
                given.first_norm, grad_attended.get(), residual.get(), args.grad_first_norm, args.grad_first_norm_bias,
                args.grad_output_bias);
  weight_gradient(tokens, hidden, hidden, grad_attended.get(), args.context, args.grad_output);

  pack_transposed(given.output, first.get());
  float* const grad_context = grad_normed.get();
  multiply(tokens, hidden, hidden, grad_attended.get(), first.get(), nullptr, grad_context);
  const cpu::Scratch grad_qkv(tokens * 3 * hidden);
  VarlenAttentionBackward attention{};
  attention.given = attention_of(given, args.qkv);
  attention.grad_out = grad_context;
  attention.out = args.context;
  attention.lse = args.lse;
  attention.grad_q = grad_qkv.get();
  attention.grad_k = grad_qkv.get() + hidden;
  attention.grad_v = grad_qkv.get() + 2 * hidden;
  attention.bias_groups = 1;
  varlen_attention_backward_cpu(attention);

  pack_transposed(given.qkv, first.get());
  multiply(tokens, 3 * hidden, hidden, grad_qkv.get(), first.get(), nullptr, args.grad_x);
  add_all(args.grad_x, dropped ? residual.get() : grad_attended.get(), tokens * hidden);
  if (args.grad_qkv[0] != nullptr || args.grad_qkv[1] != nullptr || args.grad_qkv[2] != nullptr) {
    weight_gradient_cpu({tokens,
                         3 * hidden,
                         hidden,
                         grad_qkv.get(),
                         given.x,
                         {args.grad_qkv[0], args.grad_qkv[1], args.grad_qkv[2]},
                         given.qkv.rows_of_part});
  }
  if (args.grad_qkv_bias != nullptr) sum_rows(tokens, 3 * hidden, grad_qkv.get(), args.grad_qkv_bias);
}

}  // namespace sentcore
