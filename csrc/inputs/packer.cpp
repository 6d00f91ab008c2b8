#include "inputs/packer.h"

#include <algorithm>
#include <numeric>
#include <stdexcept>
#include <string>

namespace sentcore {

std::int64_t pack_batch(const RaggedTokens& tokens, const std::int64_t* indices, std::int64_t num_indices,
                        const PackedArrays& out) {
  std::int64_t total = 0;
  std::int64_t longest = 0;
  out.cu_seqlens[0] = 0;
  for (std::int64_t k = 0; k < num_indices; ++k) {
    const std::int64_t text = indices[k];
    if (text < 0 || text >= tokens.num_texts) {
      throw std::invalid_argument("indices[" + std::to_string(k) + "] is " + std::to_string(text) +
                                  "; accepted are 0 to " + std::to_string(tokens.num_texts - 1) + ", one of the " +
                                  std::to_string(tokens.num_texts) + " tokenized texts");
    }
    const std::int64_t begin = tokens.offsets[text], end = tokens.offsets[text + 1];
    if (begin < 0 || end < begin || end > tokens.num_tokens) {
      throw std::invalid_argument("tokens.offsets places text " + std::to_string(text) + " at " +
                                  std::to_string(begin) + " to " + std::to_string(end) + "; accepted are offsets " +
                                  "that never decrease, from 0 to the " + std::to_string(tokens.num_tokens) +
                                  " token ids");
    }
    total += end - begin;
    longest = std::max(longest, end - begin);
    if (total > INT32_MAX) {
      throw std::invalid_argument("indices select more than " + std::to_string(INT32_MAX) +
                                  " tokens, the most that one batch can hold; give fewer sentences");
    }
    out.cu_seqlens[k + 1] = static_cast<std::int32_t>(total);
  }
  if (total != out.num_tokens) {
    throw std::invalid_argument("the output arrays hold " + std::to_string(out.num_tokens) +
                                " tokens but indices select " + std::to_string(total));
  }
  for (std::int64_t k = 0; k < num_indices; ++k) {
    const std::int64_t begin = tokens.offsets[indices[k]];
    const std::int64_t at = out.cu_seqlens[k];
    const std::int64_t length = out.cu_seqlens[k + 1] - at;
    // A loop that widens int32 to int64; memcpy cannot.
    std::copy_n(tokens.token_ids + begin, length, out.token_ids + at);
    std::iota(out.position_ids + at, out.position_ids + at + length, std::int64_t{0});
    if (tokens.token_type_ids != nullptr) {
      std::copy_n(tokens.token_type_ids + begin, length, out.token_type_ids + at);
    } else {
      std::fill_n(out.token_type_ids + at, length, std::int64_t{0});
    }
  }
  return longest;
}

}  // namespace sentcore
