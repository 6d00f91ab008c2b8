// Gathers chosen sentences of a ragged token store into one packed batch. Plain C++: no Python, no torch.
#pragma once

#include <cstdint>

namespace sentcore {

// The store: B texts, text b is token_ids[offsets[b] : offsets[b+1]].
struct RaggedTokens {
  const std::int32_t* token_ids;       // [T]
  const std::int64_t* offsets;         // [B+1]
  const std::int32_t* token_type_ids;  // [T], or nullptr: all zero
  std::int64_t num_tokens;             // T
  std::int64_t num_texts;              // B
};

// The batch: b sentences, t tokens; the caller allocates.
struct PackedArrays {
  std::int64_t* token_ids;       // [t]
  std::int64_t* position_ids;    // [t], 0 .. length-1 in each sentence
  std::int64_t* token_type_ids;  // [t]
  std::int32_t* cu_seqlens;      // [b+1], cumulative lengths, first 0, last t
  std::int64_t num_tokens;       // t
};

// Writes the sentences `indices` [num_indices] int64, in that order, into `out`; returns the longest one's length.
// Throws std::invalid_argument, before anything but cu_seqlens is written, for an index outside the store, offsets that
// do not lie in it, or an out.num_tokens that is not the sum of the lengths.
std::int64_t pack_batch(const RaggedTokens& tokens, const std::int64_t* indices, std::int64_t num_indices,
                        const PackedArrays& out);

}  // namespace sentcore
