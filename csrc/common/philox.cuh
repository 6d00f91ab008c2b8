// Philox4x32-10, the counter-based generator behind every dropout mask (Salmon et al., "Parallel random numbers: as
// easy as 1, 2, 3", 2011). One function for CUDA, emulation and CPU, so the mask of an element is the same everywhere.
#pragma once

#include "common/portable.h"

namespace sentcore {

struct Random4 {
  std::uint32_t word[4];
};

SENTCORE_HD Random4 philox4x32_10(std::uint64_t key, std::uint64_t counter_low, std::uint64_t counter_high) {
  std::uint32_t c0 = static_cast<std::uint32_t>(counter_low);
  std::uint32_t c1 = static_cast<std::uint32_t>(counter_low >> 32);
  std::uint32_t c2 = static_cast<std::uint32_t>(counter_high);
  std::uint32_t c3 = static_cast<std::uint32_t>(counter_high >> 32);
  std::uint32_t k0 = static_cast<std::uint32_t>(key);
  std::uint32_t k1 = static_cast<std::uint32_t>(key >> 32);
#ifdef __CUDA_ARCH__
#pragma unroll
#endif
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t product0 = static_cast<std::uint64_t>(c0) * 0xD2511F53u;
    const std::uint64_t product1 = static_cast<std::uint64_t>(c2) * 0xCD9E8D57u;
    c0 = static_cast<std::uint32_t>(product1 >> 32) ^ c1 ^ k0;
    c1 = static_cast<std::uint32_t>(product1);
    c2 = static_cast<std::uint32_t>(product0 >> 32) ^ c3 ^ k1;
    c3 = static_cast<std::uint32_t>(product0);
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

// The dropout of one call: which elements are kept, and what a kept one is multiplied by.
struct Dropout {
  std::uint64_t key;        // seed[0]
  std::uint64_t offset;     // seed[1]
  std::uint32_t threshold;  // floor(p * 2^32): an element is kept iff its random word is at least this

  // Whether the elements index .. index + count - 1 are kept, one bit each from bit 0 up. index counts through the
  // whole tensor, row * H + column. count > 1 asks that index is a multiple of 4, so that no word is drawn twice.
  template <int count>
  SENTCORE_HD std::uint32_t keep_bits(std::uint64_t index) const {
    static_assert(count == 1 || count % 4 == 0, "one element, or whole draws of four");
    if (count == 1) {
      const Random4 random = philox4x32_10(key, index / 4, offset);
      const std::uint32_t lane = static_cast<std::uint32_t>(index % 4);
      // Selected without indexing, which would send the words through memory.
      std::uint32_t word = lane == 0 ? random.word[0] : random.word[1];
      word = lane == 2 ? random.word[2] : word;
      word = lane == 3 ? random.word[3] : word;
      return word >= threshold ? 1u : 0u;
    }
    std::uint32_t bits = 0;
    for (int draw = 0; draw < count / 4; ++draw) {
      const Random4 random = philox4x32_10(key, index / 4 + static_cast<std::uint64_t>(draw), offset);
      for (int i = 0; i < 4; ++i) bits |= (random.word[i] >= threshold ? 1u : 0u) << (draw * 4 + i);
    }
    return bits;
  }
};

// p in [0, 1). On the host: the kernels get the result.
inline std::uint32_t dropout_threshold(double p) { return static_cast<std::uint32_t>(p * 4294967296.0); }

}  // namespace sentcore
