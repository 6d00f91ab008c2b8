// The emulated GPU. One fiber per CUDA thread; the blocks of a launch run one after the other, in a shuffled order.
//
// A fiber runs until it meets others (barrier, shuffle, vote, matrix instruction) or touches an atomic; then another
// one is chosen, in an order that the seed decides (environment variable SENTCORE_EMULATION_SEED, read at every
// launch). Three ways of choosing take turns from block to block: any thread, whole warps running ahead, single threads
// running ahead. With shared memory poisoned at the start of each block, a missing barrier shows as a wrong result
// under some seed.
//
// What the copy engine does (see sm90a.h) happens at any later turn, in half of the blocks only when every thread
// waits.
//
// Stricter than a GPU: every thread of a block must reach the same barrier, at the same place in the source, and every
// lane of a mask must reach the same warp instruction; anything else is an error that says who waits where.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>

#include "emulation/types.h"

namespace sentcore::emulation {

constexpr int kWarpSize = 32;
constexpr unsigned char kPoison = 0xff;  // repeated, a NaN in every floating-point type

struct Place {
  const char* what;
  const char* file;
  int line;
};

struct PendingCopies;

// What a CUDA thread can see of itself.
struct ThreadView {
  uint3 index;
  int linear;  // index in the block
  int lane;
  int warp;
  PendingCopies* copies;  // its cp.async groups
};

extern ThreadView* current;
extern uint3 block_index;
extern dim3 block_dim;
extern dim3 grid_dim;

// Runs body(context) once for every thread of the grid, a block with shared_room bytes of shared memory at most, static
// and dynamic together. Throws std::runtime_error on a deadlock or on misuse.
void run_grid(dim3 grid, dim3 block, std::size_t shared_bytes, std::size_t shared_room, void (*body)(void*),
              void* context);

// A barrier of the whole block.
void meet_block(Place place);

// The lanes in `mask` meet; the last one to arrive calls exchange(in, out, mask), with in[lane] and out[lane] being
// what each lane passed (null for lanes outside the mask), before any of them goes on.
using Exchange = void (*)(const void* const* in, void* const* out, unsigned mask);
void meet_warp(Place place, unsigned mask, const void* in, void* out, Exchange exchange);

// Lets another thread go first, perhaps.
void pause();

// Waits until ready() holds; it is asked now and after every changed().
void wait_until(Place place, std::function<bool()> ready);
void changed();

// Something that the machine does beside the threads, at a time that they do not know. Returns its number; finish()
// does it at once if it has not been done.
std::uint64_t later(Place place, std::function<void()> work);
void finish(std::uint64_t number);

// An object of the block, made when it is first asked for and gone with the block.
std::shared_ptr<void>& block_object(const void* key);
template <typename T>
T& of_block() {
  static const char key = 0;
  std::shared_ptr<void>& object = block_object(&key);
  if (!object) object = std::make_shared<T>();
  return *static_cast<T*>(object.get());
}

// Memory of the block, poisoned at its start: one object per key, and the dynamic one.
void* shared_object(const void* key, std::size_t bytes);
void* dynamic_shared();
bool is_shared(const void* p, std::size_t bytes);
// The address that instructions with 32-bit addresses know a place in the dynamic shared memory by, and back.
std::uint32_t shared_address(const void* p);
void* from_shared_address(std::uint32_t address);

// Ends the launch with an error that names the thread and the place.
[[noreturn]] void fail(Place place, const char* message);

}  // namespace sentcore::emulation

#define threadIdx (::sentcore::emulation::current->index)
#define blockIdx (::sentcore::emulation::block_index)
#define blockDim (::sentcore::emulation::block_dim)
#define gridDim (::sentcore::emulation::grid_dim)
