// Which kernels of add_layer_norm take a row of H.
#pragma once

#include "common/dispatch.cuh"
#include "common/reduce.cuh"

namespace sentcore {

// The longest row that a warp keeps in registers: 32 floats a lane.
constexpr int kMaxWarpHidden = 1024;

// Packs of 16 bytes that a lane holds of a row of `hidden` elements.
template <typename T>
constexpr int packs_per_lane(int hidden) {
  return hidden / (kWarpSize * kPackSize<T>);
}

}  // namespace sentcore
