// Groups sentences into batches by token budget. Plain C++: no Python, no torch.
#pragma once

#include <cstdint>
#include <vector>

namespace sentcore {

// Largest sentence length accepted: a batch's cumulative lengths are int32.
inline constexpr std::int64_t kMaxLength = INT32_MAX;

// Orders B sentences longest first (equal lengths keep their order) and cuts that order into batches.
// A batch takes sentences while its sum of lengths stays <= batch_tokens; a longer sentence is a batch alone.
//   lengths       [num_sentences] int64, tokens in each sentence, 0 .. kMaxLength
//   batch_tokens  tokens in a batch, >= 1
//   order         [num_sentences] int64, written
// Returns batch_offsets [n+1] int64: batch k holds order[batch_offsets[k] : batch_offsets[k+1]].
// Throws std::invalid_argument for a length or a batch_tokens that is out of range.
std::vector<std::int64_t> plan_batches(const std::int64_t* lengths, std::int64_t num_sentences,
                                       std::int64_t batch_tokens, std::int64_t* order);

}  // namespace sentcore
