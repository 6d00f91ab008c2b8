// A ring of stages in shared memory that one side fills and the other empties.
#pragma once

#include "common/device.cuh"

namespace sentcore::ptx {

// A stage of the ring and the parity of its round.
template <int kStages>
struct Turn {
  int stage = 0;
  unsigned parity = 0;
  __device__ __forceinline__ void advance(int steps) {
    stage += steps;
    parity ^= static_cast<unsigned>(stage / kStages) & 1u;
    stage %= kStages;
  }
};

}  // namespace sentcore::ptx
