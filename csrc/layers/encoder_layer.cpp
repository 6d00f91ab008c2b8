// encoder_layer and encoder_layer_backward as torch calls them: checks, outputs. The schemas are in
// sentcore/ops/encoder_layer/register.py.

#include "layers/encoder_layer.h"

#include <algorithm>
#include <string>
#include <vector>

#include "common/checks.h"
#include "common/register.h"
#include "layers/checks.h"

namespace sentcore {
namespace {

// The places of a layer's tensors in `weights`, after those of queries, keys and values: one weight [3H, H] and one
// bias [3H], or three of each.
enum Place {
  output,
  output_bias,
  first_norm,
  first_norm_bias,
  up,
  up_bias,
  down,
  down_bias,
  second_norm,
  second_norm_bias,
  kPlaces
};
constexpr const char* kNames[kPlaces] = {"output",  "output_bias", "first_norm", "first_norm_bias", "up",
                                         "up_bias", "down",        "down_bias",  "second_norm",     "second_norm_bias"};

// What both directions are given, held until the kernels have run.
struct Call {
  const Tensor &x, &cu_seqlens;
  std::int64_t max_seqlen, heads;
  const std::vector<Tensor>&qkv, &weights, &seeds;
  const std::string& activation;
  double eps, attention_dropout_p, hidden_dropout_p;
};

const float* floats(const Tensor& tensor) { return static_cast<const float*>(tensor.const_data_ptr()); }
float* floats(Tensor& tensor) { return static_cast<float*>(tensor.mutable_data_ptr()); }

void check_floats(const Checks& check, const char* name, const Tensor& tensor,
                  std::initializer_list<std::int64_t> shape, const char* meaning) {
  check.dtype(name, tensor, {ScalarType::Float}, "Convert it, e.g. with .float(), or run the layer's ops one by one");
  if (!tensor.is_cpu()) check.fail(std::string(name) + " is on " + device_text(tensor) + "; accepted: the CPU");
  check.shape(name, tensor, shape, meaning);
  if (!tensor.is_contiguous()) {
    check.fail(std::string(name) + " is not contiguous; accepted: contiguous tensors. Call .contiguous()");
  }
}

void check_batch(const Checks& check, const Call& call, std::int64_t tokens) {
  check.dtype("cu_seqlens", call.cu_seqlens, {ScalarType::Int}, "Convert it with .int()");
  check.dimensions("cu_seqlens", call.cu_seqlens, 1, "[B + 1]");
  if (!call.cu_seqlens.is_cpu()) check.fail("cu_seqlens is not on the CPU; accepted: the CPU. Move it there");
  if (!call.cu_seqlens.is_contiguous()) check.fail("cu_seqlens is not contiguous; accepted: contiguous. Copy it");
  check_offsets(check, call.cu_seqlens, call.max_seqlen, tokens);
}

TrainedLayer given_of(const Checks& check, const Call& call) {
  check.dimensions("x", call.x, 2, "[T, H]");
  TrainedLayer given{};
  const std::int64_t tokens = given.tokens = call.x.sizes()[0], hidden = given.hidden = call.x.sizes()[1];
  check_floats(check, "x", call.x, {tokens, hidden}, "[T, H]");
  if (tokens < 1 || hidden < 1) check.fail("x is empty; accepted: at least one token. Leave the call out");
  if (call.heads < 1 || hidden % call.heads != 0) {
    check.fail("x has " + std::to_string(hidden) + " columns for " + std::to_string(call.heads) +
               " heads; accepted: as many for each head");
  }
  check_batch(check, call, tokens);
  if (call.qkv.size() != 2 && call.qkv.size() != 6) {
    check.fail("qkv holds " + std::to_string(call.qkv.size()) +
               " tensors; accepted: a weight and a bias, or three weights and three biases");
  }
  if (call.weights.size() != kPlaces) {
    check.fail("weights holds " + std::to_string(call.weights.size()) + " tensors; accepted: 10");
  }
  const std::size_t parts = call.qkv.size() / 2;
  const std::int64_t part_rows = parts == 1 ? 3 * hidden : hidden;
  const std::int64_t inner = given.inner = call.weights[up_bias].numel();
  given.qkv = {{}, part_rows, 3 * hidden, hidden};
  for (std::size_t i = 0; i < parts; ++i) {
    check_floats(check, "qkv", call.qkv[i], {part_rows, hidden}, "queries, keys and values");
    check_floats(check, "qkv", call.qkv[parts + i], {part_rows}, "the bias of queries, keys or values");
    given.qkv.part[i] = floats(call.qkv[i]);
  }
  for (int i = 0; i < kPlaces; ++i) {
    const Tensor& weight = call.weights[static_cast<std::size_t>(i)];
    if (i == output || i == up || i == down) {
      check_floats(check, kNames[i], weight, {i == up ? inner : hidden, i == down ? inner : hidden},
                   "a linear layer's weight");
    } else {
      check_floats(check, kNames[i], weight, {i == up_bias ? inner : hidden}, "a bias or a LayerNorm's weight");
    }
  }
  const auto alone = [&](Place place, std::int64_t rows, std::int64_t depth) {
    return StackedWeight{{floats(call.weights[place])}, rows, rows, depth};
  };
  given.output = alone(output, hidden, hidden);
  given.up = alone(up, inner, hidden);
  given.down = alone(down, hidden, inner);
  given.first_norm = floats(call.weights[first_norm]);
  given.second_norm = floats(call.weights[second_norm]);
  given.sentences = call.cu_seqlens.sizes()[0] - 1;
  given.max_seqlen = call.max_seqlen;
  given.heads = call.heads;
  given.activation = activation_of(check, call.activation);
  given.eps = call.eps;
  given.attention_dropout_p = call.attention_dropout_p;
  given.hidden_dropout_p = call.hidden_dropout_p;
  given.cu_seqlens = static_cast<const std::int32_t*>(call.cu_seqlens.const_data_ptr());
  given.x = floats(call.x);
  const bool dropped = call.attention_dropout_p > 0.0 || call.hidden_dropout_p > 0.0;
  if (call.seeds.size() != 3 && dropped) {
    check.fail("seeds holds " + std::to_string(call.seeds.size()) +
               " tensors; accepted with dropout: 3, of the attention and of what either LayerNorm adds");
  }
  const auto seed_of = [&](double p, std::size_t i) -> const std::int64_t* {
    check.dropout(p, p > 0.0 ? std::optional<Tensor>(call.seeds[i]) : std::nullopt, "x", call.x);
    return p > 0.0 ? static_cast<const std::int64_t*>(call.seeds[i].const_data_ptr()) : nullptr;
  };
  given.attention_seed = seed_of(call.attention_dropout_p, 0);
  given.first_seed = seed_of(call.hidden_dropout_p, 1);
  given.second_seed = seed_of(call.hidden_dropout_p, 2);
  return given;
}

// x [T,H] float32, cu_seqlens [B+1] int32, qkv and weights as Place says, seeds three [2] int64 or none
// -> out [T,H]; then what the backward takes: qkv [T,3H], lse [T,N], context [T,H], first_sums [T,H], first_mean [T],
//    first_rstd [T], normed [T,H], pre [T,F], second_sums, second_mean, second_rstd.
std::vector<Tensor> forward(const Tensor& x, const Tensor& cu_seqlens, std::int64_t max_seqlen, std::int64_t heads,
                            std::vector<Tensor> qkv, std::vector<Tensor> weights, std::string activation, double eps,
                            double attention_dropout_p, double hidden_dropout_p, std::vector<Tensor> seeds) {
  const Checks check("encoder_layer");
  EncoderLayerForward args{};
  args.given = given_of(check, {x, cu_seqlens, max_seqlen, heads, qkv, weights, seeds, activation, eps,
                                attention_dropout_p, hidden_dropout_p});
  const std::int64_t tokens = args.given.tokens, hidden = args.given.hidden;
  std::vector<float> qkv_bias;
  for (std::size_t i = qkv.size() / 2; i < qkv.size(); ++i) {
    qkv_bias.insert(qkv_bias.end(), floats(qkv[i]), floats(qkv[i]) + qkv[i].numel());
  }
  std::vector<Tensor> results;
  const auto result = [&](std::initializer_list<std::int64_t> shape) {
    results.push_back(new_output(x, shape, ScalarType::Float));
    return floats(results.back());
  };
  args.qkv_bias = qkv_bias.data();
  args.output_bias = floats(weights[output_bias]);
  args.first_norm_bias = floats(weights[first_norm_bias]);
  args.up_bias = floats(weights[up_bias]);
  args.down_bias = floats(weights[down_bias]);
  args.second_norm_bias = floats(weights[second_norm_bias]);
  args.out = result({tokens, hidden});
  args.qkv = result({tokens, 3 * hidden});
  args.lse = result({tokens, heads});
  args.context = result({tokens, hidden});
  args.first_sums = result({tokens, hidden});
  args.first_mean = result({tokens});
  args.first_rstd = result({tokens});
  args.normed = result({tokens, hidden});
  args.pre = result({tokens, args.given.inner});
  args.second_sums = result({tokens, hidden});
  args.second_mean = result({tokens});
  args.second_rstd = result({tokens});
  encoder_layer_forward_cpu(args);
  return results;
}

// grad_out [T,H], then as the forward; saved: its results but the first
// -> the gradients of x, of all of qkv and of all of weights; that of a weight matrix or a bias of qkv without elements
//    where `needed` (one for each of qkv and of weights) is false.
std::vector<Tensor> backward(const Tensor& grad_out, const Tensor& x, const Tensor& cu_seqlens, std::int64_t max_seqlen,
                             std::int64_t heads, std::vector<Tensor> qkv, std::vector<Tensor> weights,
                             std::vector<Tensor> saved, std::string activation, double eps, double attention_dropout_p,
                             double hidden_dropout_p, std::vector<Tensor> seeds, std::vector<bool> needed) {
  const Checks check("encoder_layer_backward");
  EncoderLayerBackward args{};
  args.given = given_of(check, {x, cu_seqlens, max_seqlen, heads, qkv, weights, seeds, activation, eps,
                                attention_dropout_p, hidden_dropout_p});
  const std::int64_t tokens = args.given.tokens, hidden = args.given.hidden, inner = args.given.inner;
  if (saved.size() != 11) {
    check.fail("saved holds " + std::to_string(saved.size()) +
               " tensors; accepted: 11, the forward's results but the first");
  }
  check_floats(check, "grad_out", grad_out, {tokens, hidden}, "the shape of x");
  std::size_t next = 0;
  const auto kept = [&](std::initializer_list<std::int64_t> shape) {
    check_floats(check, "saved", saved[next], shape, "as the forward gave it");
    return floats(static_cast<const Tensor&>(saved[next++]));
  };
  args.grad_out = floats(grad_out);
  args.qkv = kept({tokens, 3 * hidden});
  args.lse = kept({tokens, heads});
  args.context = kept({tokens, hidden});
  args.first_sums = kept({tokens, hidden});
  args.first_mean = kept({tokens});
  args.first_rstd = kept({tokens});
  args.normed = kept({tokens, hidden});
  args.pre = kept({tokens, inner});
  args.second_sums = kept({tokens, hidden});
  args.second_mean = kept({tokens});
  args.second_rstd = kept({tokens});
  if (needed.size() != qkv.size() + weights.size()) {
    check.fail("needed holds " + std::to_string(needed.size()) + " values; accepted: one for each weight");
  }
  std::vector<Tensor> results;
  const auto result = [&](std::initializer_list<std::int64_t> shape) {
    results.push_back(new_output(x, shape, ScalarType::Float));
    return floats(results.back());
  };
  const auto weight = [&](bool wanted, std::int64_t rows, std::int64_t columns) -> float* {
    float* const data = result({wanted ? rows : 0, columns});
    return wanted ? data : nullptr;
  };
  const std::size_t parts = qkv.size() / 2;
  const std::int64_t part_rows = args.given.qkv.rows_of_part;
  args.grad_x = result({tokens, hidden});
  bool biases = false;
  for (std::size_t i = 0; i < parts; ++i) {
    args.grad_qkv[i] = weight(needed[i], part_rows, hidden);
    biases = biases || needed[parts + i];
  }
  std::vector<float> qkv_bias(static_cast<std::size_t>(biases ? 3 * hidden : 0));
  args.grad_qkv_bias = biases ? qkv_bias.data() : nullptr;
  std::vector<float*> bias_parts;
  for (std::size_t i = 0; i < parts; ++i) bias_parts.push_back(result({biases ? part_rows : 0}));
  const auto wanted = [&](Place place) { return static_cast<bool>(needed[qkv.size() + place]); };
  args.grad_output = weight(wanted(output), hidden, hidden);
  args.grad_output_bias = result({hidden});
  args.grad_first_norm = result({hidden});
  args.grad_first_norm_bias = result({hidden});
  args.grad_up = weight(wanted(up), inner, hidden);
  args.grad_up_bias = result({inner});
  args.grad_down = weight(wanted(down), hidden, inner);
  args.grad_down_bias = result({hidden});
  args.grad_second_norm = result({hidden});
  args.grad_second_norm_bias = result({hidden});
  encoder_layer_backward_cpu(args);
  for (std::size_t i = 0; i < parts && biases; ++i) {
    const float* const from = qkv_bias.data() + static_cast<std::int64_t>(i) * part_rows;
    std::copy(from, from + part_rows, bias_parts[i]);
  }
  return results;
}

}  // namespace

SENTCORE_CPU_OPS(m) {
  m.impl("encoder_layer", TORCH_BOX(&forward));
  m.impl("encoder_layer_backward", TORCH_BOX(&backward));
}

}  // namespace sentcore
