// encoder_layers: all layers of an encoder in one call, for inference on a CPU, so that no Python runs between them.
// T tokens in B sentences, L layers, H hidden, N heads, F inside the feed-forward network. Each layer is
//
//   x = LayerNorm(x + output(attention(qkv(x))));  x = LayerNorm(x + down(act(up(x))))
//
// by the op rooms' own CPU kernels. A sentence's bits depend on the sentence alone.
#pragma once

#include <cstdint>
#include <vector>

#include "common/portable.h"

namespace sentcore {

// Of a linear layer: what pack_weight or quantize_weight gives, the scales (int8 alone), the bias.
struct LayerLinear {
  const void *weight, *scale, *bias;
};
struct LayerNorm {
  const void *weight, *bias;
};
struct EncoderLayer {
  LayerLinear qkv, output;
  LayerNorm first_norm;
  LayerLinear up, down;
  LayerNorm second_norm;
};

enum class LayerActivation { relu, gelu, gelu_tanh };

struct EncoderLayers {
  std::int64_t tokens;     // T, at least 1
  std::int64_t sentences;  // B
  std::int64_t hidden;     // H
  std::int64_t inner;      // F
  std::int64_t heads;      // N
  Dtype dtype;             // float32 or bfloat16
  bool int8;               // whether the linear layers are int8_linear's
  LayerActivation activation;
  double eps;
  std::vector<EncoderLayer> layers;  // at least one
  const std::int32_t* cu_seqlens;    // [B + 1]
  const void* x;                     // [T, H] dtype
  void* out;                         // [T, H] dtype
};

void encoder_layers_cpu(const EncoderLayers& args);

}  // namespace sentcore
