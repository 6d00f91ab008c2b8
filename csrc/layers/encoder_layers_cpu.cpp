// encoder_layers on a CPU: a thread takes some sentences through all layers, so that no thread waits for another before
// the end, and what stands between two kernels takes the memory of these sentences alone.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <vector>

#include "common/cpu.h"
#include "layers/encoder_layers.h"
#include "ops/add_layer_norm/add_layer_norm.h"
#include "ops/int8_linear/int8_linear.h"
#include "ops/packed_linear/packed_linear.h"
#include "ops/varlen_attention/varlen_attention.h"

namespace sentcore {
namespace {

constexpr std::int64_t kFewestTokens = 64;  // that a part is filled to where sentences allow: each reads all weights
constexpr std::int64_t kMostTokens = 256;   // of a part of several sentences
constexpr double kImbalance = 1.08;         // the most that the busiest thread may have beyond its share

// Some consecutive sentences.
struct Part {
  std::int64_t first, last;  // sentences
  std::int64_t begin, end;   // tokens
  std::int64_t max_seqlen;
  double cost;  // multiply-adds of a layer
};

std::int64_t bytes_of(Dtype dtype) { return dtype == Dtype::float32 ? 4 : 2; }

template <typename Kind>
Kind kind_of(LayerActivation activation) {
  switch (activation) {
    case LayerActivation::relu:
      return Kind::relu;
    case LayerActivation::gelu:
      return Kind::gelu;
    default:
      return Kind::gelu_tanh;
  }
}

// x [rows, depth] -> out [rows, columns].
void linear(const EncoderLayers& args, const LayerLinear& weights, std::int64_t rows, const void* x, std::int64_t depth,
            std::int64_t columns, bool activated, void* out) {
  if (args.int8) {
    int8_linear_cpu({rows, depth, columns, args.dtype,
                     activated ? kind_of<Int8Activation>(args.activation) : Int8Activation::none, x,
                     static_cast<const std::uint8_t*>(weights.weight), static_cast<const float*>(weights.scale),
                     static_cast<const float*>(weights.bias), out});
  } else {
    packed_linear_cpu({rows, depth, columns, args.dtype,
                       activated ? kind_of<PackedActivation>(args.activation) : PackedActivation::none, x,
                       weights.weight, weights.bias, out});
  }
}

// out = LayerNorm(x + residual), each [rows, H].
void add_layer_norm(const EncoderLayers& args, const LayerNorm& weights, std::int64_t rows, const void* x,
                    const void* residual, void* out) {
  AddLayerNormForward norm{};
  norm.rows = rows;
  norm.hidden = args.hidden;
  norm.dtype = norm.weight_dtype = args.dtype;
  norm.eps = args.eps;
  norm.x = x;
  norm.residual = residual;
  norm.weight = weights.weight;
  norm.norm_bias = weights.bias;
  norm.out = out;
  add_layer_norm_forward_cpu(norm);
}

// Bytes for a part of so many tokens: q, k, v of all heads or what is inside the feed-forward network; context; a
// product; the sum behind the attention.
std::int64_t memory_of(const EncoderLayers& args, std::int64_t tokens) {
  return bytes_of(args.dtype) * tokens * (std::max(3 * args.hidden, args.inner) + 3 * args.hidden);
}

// All layers for the sentences of a part.
void run_part(const EncoderLayers& args, const Part& part, void* memory) {
  const std::int64_t rows = part.end - part.begin, hidden = args.hidden, inner = args.inner, heads = args.heads;
  const std::int64_t row = bytes_of(args.dtype) * rows;  // bytes of a column of all tokens
  if (rows == 0) return;
  char* const wide = static_cast<char*>(memory);
  char* const context = wide + std::max(3 * hidden, inner) * row;
  char* const product = context + hidden * row;
  char* const attended = product + hidden * row;
  std::vector<std::int32_t> cu_seqlens(static_cast<std::size_t>(part.last - part.first + 1));
  for (std::int64_t b = part.first; b <= part.last; ++b) {
    cu_seqlens[static_cast<std::size_t>(b - part.first)] = args.cu_seqlens[b] - static_cast<std::int32_t>(part.begin);
  }

  VarlenAttentionForward attention{};
  attention.given.sentences = part.last - part.first;
  attention.given.tokens_q = attention.given.tokens_k = rows;
  attention.given.heads = static_cast<int>(heads);
  attention.given.size = static_cast<int>(hidden / heads);
  attention.given.max_seqlen_q = attention.given.max_seqlen_k = static_cast<int>(part.max_seqlen);
  attention.given.dtype = args.dtype;
  attention.given.exact_scale = 1.0 / std::sqrt(static_cast<double>(hidden / heads));
  attention.given.scale = static_cast<float>(attention.given.exact_scale);
  attention.given.window_left = attention.given.window_right = -1;
  attention.given.q = wide;
  attention.given.k = wide + hidden * bytes_of(args.dtype);
  attention.given.v = wide + 2 * hidden * bytes_of(args.dtype);
  attention.given.q_stride = attention.given.kv_stride = 3 * hidden;
  attention.given.cu_seqlens_q = attention.given.cu_seqlens_k = cu_seqlens.data();
  attention.out = context;

  const std::int64_t offset = bytes_of(args.dtype) * part.begin * hidden;
  const void* state = static_cast<const char*>(args.x) + offset;
  void* const out = static_cast<char*>(args.out) + offset;
  for (const EncoderLayer& layer : args.layers) {
    linear(args, layer.qkv, rows, state, hidden, 3 * hidden, false, wide);
    varlen_attention_forward_cpu(attention);
    linear(args, layer.output, rows, context, hidden, hidden, false, product);
    add_layer_norm(args, layer.first_norm, rows, product, state, attended);
    linear(args, layer.up, rows, attended, hidden, inner, true, wide);
    linear(args, layer.down, rows, wide, inner, hidden, false, product);
    add_layer_norm(args, layer.second_norm, rows, product, attended, out);
    state = out;
  }
}

// All sentences in parts that are large at first and small at the end, when threads are about to wait for each other.
std::vector<Part> parts_of(const EncoderLayers& args, std::int64_t threads) {
  std::vector<Part> parts;
  std::int64_t most = 0;  // tokens of the part that is being filled
  for (std::int64_t b = 0; b < args.sentences; ++b) {
    const std::int64_t begin = args.cu_seqlens[b], end = args.cu_seqlens[b + 1], length = end - begin;
    if (parts.empty() || end - parts.back().begin > most) {
      most = std::clamp((args.tokens - begin) / (2 * threads), kFewestTokens, kMostTokens);
      parts.push_back({b, b, begin, begin, 0, 0.0});
    }
    Part& part = parts.back();
    part.last = b + 1;
    part.end = end;
    part.max_seqlen = std::max(part.max_seqlen, length);
    const std::int64_t of_token = 4 * args.hidden * args.hidden + 2 * args.hidden * (args.inner + length);
    part.cost += static_cast<double>(length * of_token);
  }
  return parts;
}

// Whether threads that take parts in turn end at about the same time.
bool are_balanced(const std::vector<Part>& parts, std::int64_t threads) {
  std::vector<double> loads(static_cast<std::size_t>(threads));
  double total = 0;
  for (const Part& part : parts) {
    *std::min_element(loads.begin(), loads.end()) += part.cost;
    total += part.cost;
  }
  return *std::max_element(loads.begin(), loads.end()) * static_cast<double>(threads) <= kImbalance * total;
}

}  // namespace

void encoder_layers_cpu(const EncoderLayers& args) {
  const std::int64_t threads = cpu::num_threads();
  std::vector<Part> parts;
  if (args.tokens >= 2 * kFewestTokens * threads) parts = parts_of(args, threads);
  if (parts.size() < 2 || !are_balanced(parts, threads)) {
    // All in one, whose kernels share out their work.
    const std::int32_t* cu = args.cu_seqlens;
    Part all{0, args.sentences, 0, args.tokens, 0, 0.0};
    for (std::int64_t b = 0; b < args.sentences; ++b) {
      all.max_seqlen = std::max<std::int64_t>(all.max_seqlen, cu[b + 1] - cu[b]);
    }
    const cpu::ThreadMemory memory(memory_of(args, args.tokens));
    return run_part(args, all, memory.get());
  }
  std::int64_t largest = 0;
  for (const Part& part : parts) largest = std::max(largest, part.end - part.begin);
  std::atomic<std::size_t> next{0};
  cpu::parallel_for(std::min<std::int64_t>(threads, static_cast<std::int64_t>(parts.size())), 1,
                    [&](std::int64_t, std::int64_t) {
                      cpu::alone([&] {
                        const cpu::ThreadMemory memory(memory_of(args, largest));
                        for (std::size_t i = next++; i < parts.size(); i = next++)
                          run_part(args, parts[i], memory.get());
                      });
                    });
}

}  // namespace sentcore
