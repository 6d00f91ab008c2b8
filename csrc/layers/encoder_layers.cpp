// encoder_layers as torch calls it: checks, output. The schema is in sentcore/ops/encoder_layers/register.py.

#include "layers/encoder_layers.h"

#include <cmath>
#include <string>
#include <vector>

#include "common/checks.h"
#include "common/register.h"
#include "layers/checks.h"

namespace sentcore {
namespace {

// The places of a layer's tensors in `weights`. Of a linear layer: what pack_weight or quantize_weight gives, the
// scales ([0] without), the bias. Of a LayerNorm: weight, bias.
enum Place { qkv = 0, output = 3, first_norm = 6, up = 8, down = 11, second_norm = 14, kPlaces = 16 };

EncoderLayer layer_of(const Tensor* weights) {
  const auto linear = [&](Place place) {
    return LayerLinear{weights[place].const_data_ptr(), weights[place + 1].const_data_ptr(),
                       weights[place + 2].const_data_ptr()};
  };
  const auto norm = [&](Place place) {
    return LayerNorm{weights[place].const_data_ptr(), weights[place + 1].const_data_ptr()};
  };
  return {linear(qkv), linear(output), norm(first_norm), linear(up), linear(down), norm(second_norm)};
}

void check_layer(const Checks& check, const EncoderLayers& args, const Tensor& x, const Tensor* weights) {
  const auto check_linear = [&](Place place, const char* name, std::int64_t depth, std::int64_t columns) {
    const Tensor &values = weights[place], &scale = weights[place + 1], &bias = weights[place + 2];
    const std::int64_t panels = ceil_div<std::int64_t>(columns, 32);
    if (args.int8) {
      check.dtype(name, values, {ScalarType::Byte}, "Quantize all linear layers or none");
      check.shape(name, values, {panels, ceil_div<std::int64_t>(depth, 4), 32, 4}, "what quantize_weight gives");
      check.dtype(name, scale, {ScalarType::Float}, "Pass what quantize_weight gave");
      check.shape(name, scale, {columns}, "the scales of quantize_weight");
    } else {
      check.dtype(name, values, {x.scalar_type()}, "Pack it from the dtype of x");
      if (args.dtype == Dtype::float32) {
        check.shape(name, values, {panels, depth, 32}, "what pack_weight gives");
      } else {
        check.shape(name, values, {panels, depth / 2, 32, 2}, "what pack_weight gives");
      }
    }
    check.dtype(name, bias, {args.int8 ? ScalarType::Float : x.scalar_type()}, "Convert the bias");
    check.shape(name, bias, {columns}, "a bias");
  };
  const auto check_norm = [&](Place place, const char* name) {
    for (int i = 0; i < 2; ++i) {
      check.dtype(name, weights[place + i], {x.scalar_type()}, "Convert it to the dtype of x");
      check.shape(name, weights[place + i], {args.hidden}, "[H]");
    }
  };
  check_linear(qkv, "qkv", args.hidden, 3 * args.hidden);
  check_linear(output, "output", args.hidden, args.hidden);
  check_norm(first_norm, "the first LayerNorm");
  check_linear(up, "up", args.hidden, args.inner);
  check_linear(down, "down", args.inner, args.hidden);
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
  EncoderLayers args{};
  args.tokens = x.sizes()[0], args.hidden = x.sizes()[1], args.inner = inner, args.heads = heads;
  args.dtype = dtype_of(x), args.int8 = int8, args.eps = eps;
  if (heads < 1 || args.hidden % heads != 0 ||
      (args.dtype != Dtype::float32 && !int8 && (args.hidden % 2 || inner % 2))) {
    check.fail("x has " + std::to_string(args.hidden) + " columns for " + std::to_string(heads) +
               " heads; accepted: as many for each head, and even sizes in bfloat16. Run the layers one by one");
  }
  if (weights.size() % kPlaces != 0) {
    check.fail("weights holds " + std::to_string(weights.size()) + " tensors; accepted: 16 for each layer");
  }
  args.activation = activation_of(check, activation);
  const std::int64_t sentences = cu_seqlens.sizes()[0] - 1,
                     layers = static_cast<std::int64_t>(weights.size()) / kPlaces;
  for (std::int64_t i = 0; i < layers; ++i) check_layer(check, args, x, weights.data() + i * kPlaces);
  const Tensor offsets = as_contiguous(cu_seqlens), x_in = as_contiguous(x);
  const auto* cu = static_cast<const std::int32_t*>(offsets.const_data_ptr());
  check_offsets(check, offsets, max_seqlen, args.tokens);
  if (args.tokens == 0 || layers == 0) return copy_of(x);
  Tensor out = new_output(x, {args.tokens, args.hidden}, x.scalar_type());
  args.sentences = sentences;
  for (std::int64_t i = 0; i < layers; ++i) args.layers.push_back(layer_of(weights.data() + i * kPlaces));
  args.cu_seqlens = cu;
  args.x = x_in.const_data_ptr();
  args.out = out.mutable_data_ptr();
  encoder_layers_cpu(args);
  return out;
}

}  // namespace

SENTCORE_CPU_OPS(m) { m.impl("encoder_layers", TORCH_BOX(&forward)); }

}  // namespace sentcore
