// The numbers that the order of the emulated threads is drawn from.
#pragma once

#include <cstdint>

namespace sentcore::emulation {

// splitmix64: every output depends on the whole seed.
struct Random {
  std::uint64_t state;
  std::uint64_t next() {
    std::uint64_t z = (state += 0x9E3779B97F4A7C15ull);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return z ^ (z >> 31);
  }
};

}  // namespace sentcore::emulation
