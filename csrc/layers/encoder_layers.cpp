// encoder_layers: all layers of an encoder in one call, for inference on a CPU, so that no Python runs between them.
// T tokens in B sentences, L layers, H hidden, N heads, F inside the feed-forward network. Each layer is
//
//   x = LayerNorm(x + output(attention(qkv(x))));  x = LayerNorm(x + down(act(up(x))))
//
// by the op rooms' own CPU kernels. The schema is in sentcore/ops/encoder_layers/register.py.

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "common/checks.h"
#include "common/register.h"
#include "ops/add_layer_norm/add_layer_norm.h"
#include "ops/int8_linear/int8_linear.h"
#include "ops/packed_linear/packed_linear.h"
#include "ops/varlen_attention/varlen_attention.h"

namespace sentcore {
namespace {

// The places of a layer's tensors in `weights`. Of a linear layer: what pack_weight or quantize_weight gives, the
// scales
// ([0] without), the bias. Of a LayerNorm: weight, bias.
enum Place { qkv = 0, output = 3, first_norm = 6, up = 8, down = 11, second_norm = 14, kPlaces = 16 };

struct Encoder {
  std::int64_t tokens, hidden, inner, heads;
  std::string activation;
  double eps;
  bool int8;
  Dtype dtype;
};

std::int64_t bytes_of(Dtype dtype) { return dtype == Dtype::float32 ? 4 : 2; }

// x [T, depth] -> out [T, columns].
void linear(const Encoder& encoder, const Tensor* weights, const void* x, std::int64_t depth, std::int64_t columns,
            bool activated, void* out) {
  const std::string name = activated ? encoder.activation : "none";
  const auto chosen = [&](auto kind) {
    using Kind = decltype(kind);
    return name == "gelu"        ? Kind::gelu
           : name == "gelu_tanh" ? Kind::gelu_tanh
           : name == "relu"      ? Kind::relu
                                 : Kind::none;
  };
  if (encoder.int8) {
    int8_linear_cpu({encoder.tokens, depth, columns, encoder.dtype, chosen(Int8Activation::none), x,
                     static_cast<const std::uint8_t*>(weights[0].const_data_ptr()),
                     static_cast<const float*>(weights[1].const_data_ptr()),
                     static_cast<const float*>(weights[2].const_data_ptr()), out});
  } else {
    packed_linear_cpu({encoder.tokens, depth, columns, encoder.dtype, chosen(PackedActivation::none), x,
                       weights[0].const_data_ptr(), weights[2].const_data_ptr(), out});
  }
}

// out = LayerNorm(x + residual), each [T, H].
void add_layer_norm(const Encoder& encoder, const Tensor* weights, const void* x, const void* residual, void* out) {
  AddLayerNormForward args{};
  args.rows = encoder.tokens;
  args.hidden = encoder.hidden;
  args.dtype = args.weight_dtype = encoder.dtype;
  args.eps = encoder.eps;
  args.x = x;
  args.residual = residual;
  args.weight = weights[0].const_data_ptr();
  args.norm_bias = weights[1].const_data_ptr();
  args.out = out;
  add_layer_norm_forward_cpu(args);
}

void check_layer(const Checks& check, const Encoder& encoder, const Tensor& x, const Tensor* weights) {
  const auto check_linear = [&](Place place, const char* name, std::int64_t depth, std::int64_t columns) {
    const Tensor &values = weights[place], &scale = weights[place + 1], &bias = weights[place + 2];
    const std::int64_t panels = ceil_div<std::int64_t>(columns, 32);
    if (encoder.int8) {
      check.dtype(name, values, {ScalarType::Byte}, "Quantize all linear layers or none");
      check.shape(name, values, {panels, ceil_div<std::int64_t>(depth, 4), 32, 4}, "what quantize_weight gives");
      check.dtype(name, scale, {ScalarType::Float}, "Pass what quantize_weight gave");
      check.shape(name, scale, {columns}, "the scales of quantize_weight");
    } else {
      check.dtype(name, values, {x.scalar_type()}, "Pack it from the dtype of x");
      if (encoder.dtype == Dtype::float32) {
        check.shape(name, values, {panels, depth, 32}, "what pack_weight gives");
      } else {
        check.shape(name, values, {panels, depth / 2, 32, 2}, "what pack_weight gives");
      }
    }
    check.dtype(name, bias, {encoder.int8 ? ScalarType::Float : x.scalar_type()}, "Convert the bias");
    check.shape(name, bias, {columns}, "a bias");
  };
  const auto check_norm = [&](Place place, const char* name) {
    for (int i = 0; i < 2; ++i) {
      check.dtype(name, weights[place + i], {x.scalar_type()}, "Convert it to the dtype of x");
      check.shape(name, weights[place + i], {encoder.hidden}, "[H]");
    }
  };
  check_linear(qkv, "qkv", encoder.hidden, 3 * encoder.hidden);
  check_linear(output, "output", encoder.hidden, encoder.hidden);
  check_norm(first_norm, "the first LayerNorm");
  check_linear(up, "up", encoder.hidden, encoder.inner);
  check_linear(down, "down", encoder.inner, encoder.hidden);
  check_norm(second_norm, "the second LayerNorm");
  for (int i = 0; i < kPlaces; ++i) {
    if (!weights[i].is_contiguous()) check.fail("a weight is not contiguous; accepted: contiguous ones. Copy it");
  }
}

// x [T,H] float32 | bfloat16, cu_seqlens [B+1] int32, weights as Place says for every layer -> [T,H] as x.
Tensor forward(const Tensor& x, const Tensor& cu_seqlens, std::int64_t max_seqlen, std::int64_t heads,
               std::int64_t inner, std::vector<Tensor> weights, std::string activation, double eps) {
  const Checks check("encoder_layers");
  check.dtype("x", x, {ScalarType::Float, ScalarType::BFloat16}, "Convert it, e.g. with .float()");
  check.dimensions("x", x, 2, "[T, H]");
  check.dtype("cu_seqlens", cu_seqlens, {ScalarType::Int}, "Convert it with .int()");
  check.dimensions("cu_seqlens", cu_seqlens, 1, "[B + 1]");
  const bool int8 = !weights.empty() && weights[0].scalar_type() == ScalarType::Byte;
  const Encoder encoder{x.sizes()[0], x.sizes()[1], inner, heads, activation, eps, int8, dtype_of(x)};
  if (heads < 1 || encoder.hidden % heads != 0 ||
      (encoder.dtype != Dtype::float32 && !int8 && (encoder.hidden % 2 || inner % 2))) {
    check.fail("x has " + std::to_string(encoder.hidden) + " columns for " + std::to_string(heads) +
               " heads; accepted: as many for each head, and even sizes in bfloat16. Run the layers one by one");
  }
  if (weights.size() % kPlaces != 0) {
    check.fail("weights holds " + std::to_string(weights.size()) + " tensors; accepted: 16 for each layer");
  }
  if (activation != "relu" && activation != "gelu" && activation != "gelu_tanh") {
    check.fail("activation is '" + activation + "'; accepted: relu, gelu, gelu_tanh. Run the layers one by one");
  }
  const std::int64_t sentences = cu_seqlens.sizes()[0] - 1,
                     layers = static_cast<std::int64_t>(weights.size()) / kPlaces;
  for (std::int64_t i = 0; i < layers; ++i) check_layer(check, encoder, x, weights.data() + i * kPlaces);
  const Tensor offsets = as_contiguous(cu_seqlens), x_in = as_contiguous(x);
  const auto* cu = static_cast<const std::int32_t*>(offsets.const_data_ptr());
  if (sentences < 0 || cu[0] != 0 || cu[sentences] != encoder.tokens) {
    check.fail("cu_seqlens does not run from 0 to the " + std::to_string(encoder.tokens) +
               " tokens of x. Pass the batch's");
  }
  for (std::int64_t b = 0; b < sentences; ++b) {
    if (cu[b] > cu[b + 1] || cu[b + 1] - cu[b] > max_seqlen) {
      check.fail("cu_seqlens gives sentence " + std::to_string(b) + " " + std::to_string(cu[b + 1] - cu[b]) +
                 " tokens; accepted: 0 to max_seqlen = " + std::to_string(max_seqlen) + ". Pass the batch's");
    }
  }
  Tensor out = new_output(x, {encoder.tokens, encoder.hidden}, x.scalar_type());
  if (encoder.tokens == 0) return out;
  // One allocation: q, k, v of all heads or what is inside the feed-forward network; context; sum of the attention; and
  // out, which holds x between layers.
  const std::int64_t widest = std::max(3 * encoder.hidden, inner);
  const Tensor scratch = new_output(x, {encoder.tokens, widest + 3 * encoder.hidden}, x.scalar_type());
  char* const wide = static_cast<char*>(scratch.mutable_data_ptr());
  const std::int64_t row = bytes_of(encoder.dtype) * encoder.tokens;
  char* const context = wide + widest * row;
  char* const product = context + encoder.hidden * row;
  char* const attended = product + encoder.hidden * row;

  VarlenAttentionForward attention{};
  attention.given.sentences = sentences;
  attention.given.tokens_q = attention.given.tokens_k = encoder.tokens;
  attention.given.heads = static_cast<int>(heads);
  attention.given.size = static_cast<int>(encoder.hidden / heads);
  attention.given.max_seqlen_q = attention.given.max_seqlen_k = static_cast<int>(max_seqlen);
  attention.given.dtype = encoder.dtype;
  attention.given.exact_scale = 1.0 / std::sqrt(static_cast<double>(encoder.hidden / heads));
  attention.given.scale = static_cast<float>(attention.given.exact_scale);
  attention.given.window_left = attention.given.window_right = -1;
  attention.given.q = wide;
  attention.given.k = wide + encoder.hidden * bytes_of(encoder.dtype);
  attention.given.v = wide + 2 * encoder.hidden * bytes_of(encoder.dtype);
  attention.given.q_stride = attention.given.kv_stride = 3 * encoder.hidden;
  attention.given.cu_seqlens_q = attention.given.cu_seqlens_k = cu;
  attention.out = context;

  const void* state = x_in.const_data_ptr();
  for (std::int64_t i = 0; i < layers; ++i) {
    const Tensor* layer = weights.data() + i * kPlaces;
    linear(encoder, layer + qkv, state, encoder.hidden, 3 * encoder.hidden, false, wide);
    varlen_attention_forward_cpu(attention);
    linear(encoder, layer + output, context, encoder.hidden, encoder.hidden, false, product);
    add_layer_norm(encoder, layer + first_norm, product, state, attended);
    linear(encoder, layer + up, attended, encoder.hidden, inner, true, wide);
    linear(encoder, layer + down, wide, inner, encoder.hidden, false, product);
    add_layer_norm(encoder, layer + second_norm, product, attended, out.mutable_data_ptr());
    state = out.const_data_ptr();
  }
  if (layers == 0) return torch::stable::clone(x);
  return out;
}

}  // namespace

SENTCORE_CPU_OPS(m) { m.impl("encoder_layers", TORCH_BOX(&forward)); }

}  // namespace sentcore
