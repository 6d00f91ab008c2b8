// common/launch.cuh for the emulation.
#pragma once

#include <tuple>
#include <utility>

#include "emulation/runtime.h"

// A reference to an object of the block instead of a variable; its key is one byte per place and template instance.
#define SENTCORE_SHARED(type, name, extents) \
  static const char name##_key = 0;          \
  typedef type name##_type extents;          \
  name##_type& name = *static_cast<name##_type*>(::sentcore::emulation::shared_object(&name##_key, sizeof(name##_type)))

#define SENTCORE_DYNAMIC_SHARED(type, name) type* name = static_cast<type*>(::sentcore::emulation::dynamic_shared())

namespace sentcore {

struct LaunchShape {
  dim3 grid;
  dim3 block;
  std::size_t shared_bytes = 0;
  std::size_t shared_limit =
      99 * 1024;  // of the smallest GPU the kernel is compiled for; the emulation holds it to that
};

template <typename T>
struct Given {
  using type = T;
};

// More dynamic shared memory than this is asked for. CUDA gives a block 48 kB unasked, of which its static shared
// memory is a part.
constexpr std::size_t kUnaskedSharedBytes = 32 * 1024;

// Runs kernel(args...) to its end. The limits are a GPU's.
template <typename... Params>
cudaError_t launch(void (*kernel)(Params...), const LaunchShape& shape, cudaStream_t,
                   typename Given<Params>::type... args) {
  const dim3 &grid = shape.grid, &block = shape.block;
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return cudaSuccess;
  if (grid.x > 0x7fffffffu || grid.y > 65535u || grid.z > 65535u) return cudaErrorInvalidConfiguration;
  const std::uint64_t threads = std::uint64_t{block.x} * block.y * block.z;
  if (threads == 0 || threads > 1024 || block.z > 64) return cudaErrorInvalidConfiguration;
  if (shape.shared_bytes > shape.shared_limit) return cudaErrorInvalidValue;
  struct Call {
    void (*kernel)(Params...);
    std::tuple<Params...> args;
  } call{kernel, {args...}};
  const std::size_t room = shape.shared_bytes > kUnaskedSharedBytes ? shape.shared_limit : 48 * 1024;
  emulation::run_grid(
      grid, block, shape.shared_bytes, room,
      [](void* context) {
        auto* c = static_cast<Call*>(context);
        std::apply(c->kernel, c->args);
      },
      &call);
  return cudaSuccess;
}

}  // namespace sentcore
