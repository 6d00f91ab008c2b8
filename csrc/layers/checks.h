// Checks that encoder_layer and encoder_layers share.
#pragma once

#include <cstdint>
#include <string>

#include "common/checks.h"
#include "layers/encoder_layers.h"

namespace sentcore {

// cu_seqlens [B + 1] int32, contiguous, on the CPU: from 0 to `tokens`, no sentence longer than max_seqlen.
inline void check_offsets(const Checks& check, const Tensor& cu_seqlens, std::int64_t max_seqlen, std::int64_t tokens) {
  const std::int64_t sentences = cu_seqlens.sizes()[0] - 1;
  const auto* cu = static_cast<const std::int32_t*>(cu_seqlens.const_data_ptr());
  if (sentences < 0 || cu[0] != 0 || cu[sentences] != tokens) {
    check.fail("cu_seqlens does not run from 0 to the " + std::to_string(tokens) + " tokens of x. Pass the batch's");
  }
  for (std::int64_t b = 0; b < sentences; ++b) {
    if (cu[b] > cu[b + 1] || cu[b + 1] - cu[b] > max_seqlen) {
      check.fail("cu_seqlens gives sentence " + std::to_string(b) + " " + std::to_string(cu[b + 1] - cu[b]) +
                 " tokens; accepted: 0 to max_seqlen = " + std::to_string(max_seqlen) + ". Pass the batch's");
    }
  }
}

inline LayerActivation activation_of(const Checks& check, const std::string& name) {
  if (name == "relu") return LayerActivation::relu;
  if (name == "gelu") return LayerActivation::gelu;
  if (name == "gelu_tanh") return LayerActivation::gelu_tanh;
  check.fail("activation is '" + name + "'; accepted: relu, gelu, gelu_tanh. Run the layers' ops one by one");
}

}  // namespace sentcore
