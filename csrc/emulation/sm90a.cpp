// The barriers and the copy engine of sm_90.
#include "emulation/sm90a.h"

#include <deque>
#include <map>
#include <string>
#include <vector>

namespace sentcore::ptx {
namespace {

using emulation::current;
using emulation::fail;
using emulation::Place;

// ---- barriers ----

struct BarrierState {
  unsigned expected;  // arrivals of a phase
  unsigned missing;   // of this phase
  std::int64_t bytes = 0;
  unsigned parity = 0;
};
struct Barriers {
  std::map<const Barrier*, BarrierState> states;
};

BarrierState& state_of(const Barrier* barrier, Place place) {
  auto& states = emulation::of_block<Barriers>().states;
  const auto found = states.find(barrier);
  if (found == states.end()) fail(place, "the barrier was not made by barrier_init");
  return found->second;
}

void close_phase_if_over(BarrierState& state) {
  if (state.missing != 0 || state.bytes != 0) return;
  state.parity ^= 1;
  state.missing = state.expected;
  emulation::changed();
}

void arrive(BarrierState& state, Place place) {
  if (state.missing == 0) fail(place, "more arrivals than barrier_init was told");
  --state.missing;
  close_phase_if_over(state);
}

}  // namespace

void store_shared(std::uint32_t target, std::uint32_t value) {
  void* there = emulation::from_shared_address(target);
  if (target % 4 != 0 || !emulation::is_shared(there, 4)) {
    fail({"store_shared", __FILE__, __LINE__}, "the address is not that of 4 bytes of shared memory");
  }
  std::memcpy(there, &value, 4);
}

void barrier_init(Barrier* barrier, unsigned arrivals) {
  const Place place{"barrier_init", __FILE__, __LINE__};
  if (!emulation::is_shared(barrier, sizeof(Barrier))) fail(place, "the barrier is not in the block's shared memory");
  if (arrivals == 0) fail(place, "a phase needs at least one arrival");
  emulation::of_block<Barriers>().states[barrier] = {arrivals, arrivals};
}

void barrier_arrive(Barrier* barrier) {
  const Place place{"barrier_arrive", __FILE__, __LINE__};
  emulation::pause();
  arrive(state_of(barrier, place), place);
}

void barrier_arrive_and_expect(Barrier* barrier, unsigned bytes) {
  const Place place{"barrier_arrive_and_expect", __FILE__, __LINE__};
  emulation::pause();
  BarrierState& state = state_of(barrier, place);
  state.bytes += bytes;
  arrive(state, place);
}

void barrier_wait(Barrier* barrier, unsigned parity) {
  const Place place{"barrier_wait", __FILE__, __LINE__};
  const BarrierState& state = state_of(barrier, place);
  emulation::wait_until(place, [&state, parity] { return state.parity != parity; });
}

namespace {
struct Meeting {
  int arrived = 0;
  std::uint64_t round = 0;
};
struct NamedBarriers {
  Meeting meetings[16];
};
}  // namespace

void named_barrier(int number, int threads) {
  const Place place{"named_barrier", __FILE__, __LINE__};
  if (number < 1 || number > 15 || threads % emulation::kWarpSize != 0) {
    fail(place, "numbers are 1 to 15, and threads are whole warps");
  }
  Meeting& meeting = emulation::of_block<NamedBarriers>().meetings[number];
  const std::uint64_t round = meeting.round;
  if (++meeting.arrived == threads) {
    meeting.arrived = 0;
    ++meeting.round;
    emulation::changed();
    return emulation::pause();
  }
  emulation::wait_until(place, [&meeting, round] { return meeting.round != round; });
}

// ---- copies ----

namespace {

struct StoreGroups {
  std::map<int, std::vector<std::uint64_t>> open;                // by thread: works not yet in a group
  std::map<int, std::deque<std::vector<std::uint64_t>>> groups;  // oldest first
};

void check_box(const void* shared, Place place) {
  if (shared_address(shared) % 1024 != 0) fail(place, "a box is not aligned to 1024 bytes of shared memory");
  if (!emulation::is_shared(shared, kBoxRows * kBoxBytes)) fail(place, "a box is not all in the block's shared memory");
}

// Calls each(place in shared memory, place in the matrix or null outside of it) for the elements of a box, of 2 bytes.
template <typename Each>
void for_elements(const TensorMap& map, const void* shared, int row, int column, const Each& each) {
  for (int r = 0; r < kBoxRows; ++r) {
    for (int c = 0; c < kBoxBytes / 2; ++c) {
      const std::uint32_t offset = static_cast<std::uint32_t>(r * kBoxBytes + c * 2);
      void* here = emulation::from_shared_address(emulated::swizzled(shared_address(shared) + offset));
      const std::int64_t m = row + r, n = column + c;
      const bool inside = m >= 0 && m < map.rows && n >= 0 && n < map.columns;
      each(here, inside ? map.matrix + (m * map.stride + n) * 2 : nullptr);
    }
  }
}

}  // namespace

void load_box(void* shared, const TensorMap* map, Barrier* barrier, int row, int column) {
  const Place place{"load_box", __FILE__, __LINE__};
  check_box(shared, place);
  BarrierState& state = state_of(barrier, place);
  std::memset(shared, emulation::kPoison, kBoxRows * kBoxBytes);
  emulation::later(place, [shared, copy = *map, &state, row, column] {
    for_elements(copy, shared, row, column, [](void* here, const unsigned char* there) {
      if (there == nullptr) {
        std::memset(here, 0, 2);
      } else {
        std::memcpy(here, there, 2);
      }
    });
    state.bytes -= kBoxRows * kBoxBytes;
    close_phase_if_over(state);
  });
}

void store_box(const TensorMap* map, std::uint32_t address, int row, int column) {
  const Place place{"store_box", __FILE__, __LINE__};
  const void* shared = emulation::from_shared_address(address);
  check_box(shared, place);
  const std::uint64_t work = emulation::later(place, [shared, copy = *map, row, column] {
    for_elements(copy, shared, row, column, [](const void* here, unsigned char* there) {
      if (there != nullptr) std::memcpy(there, here, 2);
    });
  });
  emulation::of_block<StoreGroups>().open[current->linear].push_back(work);
}

void store_commit() {
  StoreGroups& stores = emulation::of_block<StoreGroups>();
  stores.groups[current->linear].push_back(std::move(stores.open[current->linear]));
  stores.open[current->linear].clear();
}

void emulated::store_wait(int pending) {
  auto& groups = emulation::of_block<StoreGroups>().groups[current->linear];
  while (static_cast<int>(groups.size()) > pending) {
    const std::vector<std::uint64_t> works = std::move(groups.front());
    groups.pop_front();
    for (const std::uint64_t work : works) emulation::finish(work);
  }
}

}  // namespace sentcore::ptx
