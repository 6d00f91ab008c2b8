// encoder_layer: one layer of an encoder forward and backward, for training on a CPU, so that no Python runs between
// its ops and what stands between two products stays in a core's cache. T tokens in B sentences, H hidden, N heads, F
// inside the feed-forward network; all float32, contiguous.
//
//   normed = LayerNorm(x + dropout(output(attention(qkv(x)))))
//   out = LayerNorm(normed + dropout(down(act(up(normed)))))
//
// by the op rooms' own CPU kernels. Weights are packed at every call: an optimizer writes to them between two.
#pragma once

#include <cstdint>

#include "common/portable.h"
#include "layers/encoder_layers.h"

namespace sentcore {

// The weight [R, K] of a linear layer, or of three that are one below the other.
struct StackedWeight {
  const float* part[3];
  std::int64_t rows_of_part;
  std::int64_t rows;   // R
  std::int64_t depth;  // K
  const float* row(std::int64_t r) const { return part[r / rows_of_part] + r % rows_of_part * depth; }
};

// What the forward and the backward are both given.
struct TrainedLayer {
  std::int64_t tokens;      // T, at least 1
  std::int64_t sentences;   // B
  std::int64_t max_seqlen;  // of the call: it numbers the elements that the attention drops
  std::int64_t hidden;      // H
  std::int64_t inner;       // F
  std::int64_t heads;       // N
  LayerActivation activation;
  double eps;
  double attention_dropout_p;
  double hidden_dropout_p;
  const std::int64_t* attention_seed;  // [2] (seed, offset), or null without dropout; likewise the other two
  const std::int64_t* first_seed;
  const std::int64_t* second_seed;
  const std::int32_t* cu_seqlens;  // [B + 1]
  const float* x;                  // [T, H]
  StackedWeight qkv;               // [3H, H]
  StackedWeight output;            // [H, H]
  StackedWeight up;                // [F, H]
  StackedWeight down;              // [H, F]
  const float* first_norm;         // [H]
  const float* second_norm;        // [H]
};

// All outputs but `out` are for the backward.
struct EncoderLayerForward {
  TrainedLayer given;
  const float* qkv_bias;  // [3H]
  const float* output_bias;
  const float* first_norm_bias;
  const float* up_bias;
  const float* down_bias;
  const float* second_norm_bias;
  float* out;         // [T, H]
  float* qkv;         // [T, 3, N, D]
  float* lse;         // [T, N]
  float* context;     // [T, H]: of the attention
  float* first_sums;  // [T, H] and two [T]: what the first LayerNorm saves
  float* first_mean;
  float* first_rstd;
  float* normed;       // [T, H]
  float* pre;          // [T, F]: before the activation
  float* second_sums;  // as the first
  float* second_mean;
  float* second_rstd;
};

// Every output is overwritten; null where nobody asks for a weight's or table's gradient.
struct EncoderLayerBackward {
  TrainedLayer given;
  const float* grad_out;  // [T, H]
  const float* qkv;       // as the forward gave them
  const float* lse;
  const float* context;
  const float* first_sums;
  const float* first_mean;
  const float* first_rstd;
  const float* normed;
  const float* pre;
  const float* second_sums;
  const float* second_mean;
  const float* second_rstd;
  float* grad_x;         // [T, H]
  float* grad_qkv[3];    // as given.qkv.part, or null
  float* grad_qkv_bias;  // [3H], or null
  float* grad_output;    // or null, as `up` and `down`
  float* grad_output_bias;
  float* grad_first_norm;
  float* grad_first_norm_bias;
  float* grad_up;
  float* grad_up_bias;
  float* grad_down;
  float* grad_down_bias;
  float* grad_second_norm;
  float* grad_second_norm_bias;
};

void encoder_layer_forward_cpu(const EncoderLayerForward& args);
void encoder_layer_backward_cpu(const EncoderLayerBackward& args);

}  // namespace sentcore
