// What a persistent kernel asks of the GPU.
#pragma once

#include "common/device.cuh"

namespace sentcore {

constexpr std::size_t kSm90aSharedBytes = 227 * 1024;  // that a block can have

constexpr int kWarpgroup = 128;  // threads
// Of a block of three warpgroups, one of which fills and two of which compute: what the one gives away and the others
// take. 128 * 24 + 256 * 240 are what 384 * 168 were.
constexpr int kGivenRegisters = 24, kTakenRegisters = 240;

// Multiprocessors of the current device.
inline int multiprocessors() {
#ifdef SENTCORE_EMULATE
  return 3;  // so few that blocks take several tiles
#else
  int device = 0, count = 0;
  if (cudaGetDevice(&device) != cudaSuccess) return 1;
  if (cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device) != cudaSuccess) return 1;
  return count;
#endif
}

}  // namespace sentcore
