#include "emulation/hopper.h"

#include <deque>
#include <map>
#include <string>
#include <vector>

namespace sentcore::ptx {
namespace {

using emulation::block_object;
using emulation::current;
using emulation::fail;
using emulation::Place;

// An object of T that the block has.
template <typename T>
T& of_block() {
  static const char key = 0;
  std::shared_ptr<void>& object = block_object(&key);
  if (!object) object = std::make_shared<T>();
  return *static_cast<T*>(object.get());
}

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
  auto& states = of_block<Barriers>().states;
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
  of_block<Barriers>().states[barrier] = {arrivals, arrivals};
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
  Meeting& meeting = of_block<NamedBarriers>().meetings[number];
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

std::uint32_t swizzled(std::uint32_t address) { return address ^ (address >> 7 & 7) << 4; }

void check_box(const void* shared, Place place) {
  if (shared_address(shared) % 1024 != 0) fail(place, "a box is not aligned to 1024 bytes of shared memory");
  if (!emulation::is_shared(shared, kBoxRows * kBoxBytes)) fail(place, "a box is not all in the block's shared memory");
}

// Calls each(place in shared memory, place in the matrix or null outside of it, bytes) for the elements of a box.
template <typename Each>
void for_elements(const TensorMap& map, const void* shared, int row, int column, const Each& each) {
  const int columns = kBoxBytes / map.element_bytes;
  for (int r = 0; r < kBoxRows; ++r) {
    for (int c = 0; c < columns; ++c) {
      const std::uint32_t offset = static_cast<std::uint32_t>(r * kBoxBytes + c * map.element_bytes);
      void* here = emulation::from_shared_address(swizzled(shared_address(shared) + offset));
      const std::int64_t m = row + r, n = column + c;
      const bool inside = m >= 0 && m < map.rows && n >= 0 && n < map.columns;
      each(here, inside ? map.matrix + (m * map.columns + n) * map.element_bytes : nullptr,
           static_cast<std::size_t>(map.element_bytes));
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
    for_elements(copy, shared, row, column, [](void* here, const unsigned char* there, std::size_t bytes) {
      if (there == nullptr) {
        std::memset(here, 0, bytes);
      } else {
        std::memcpy(here, there, bytes);
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
    for_elements(copy, shared, row, column, [](const void* here, unsigned char* there, std::size_t bytes) {
      if (there != nullptr) std::memcpy(there, here, bytes);
    });
  });
  of_block<StoreGroups>().open[current->linear].push_back(work);
}

void store_commit() {
  StoreGroups& stores = of_block<StoreGroups>();
  stores.groups[current->linear].push_back(std::move(stores.open[current->linear]));
  stores.open[current->linear].clear();
}

void emulated::store_wait(int pending) {
  auto& groups = of_block<StoreGroups>().groups[current->linear];
  while (static_cast<int>(groups.size()) > pending) {
    const std::vector<std::uint64_t> works = std::move(groups.front());
    groups.pop_front();
    for (const std::uint64_t work : works) emulation::finish(work);
  }
}

// ---- products ----

namespace emulated {
namespace {

struct Products {
  std::vector<Product> open;                // not yet in a group
  std::deque<std::vector<Product>> groups;  // oldest first
  bool fenced = false;
};
struct ProductsOfThreads {
  std::map<int, Products> of;
};
Products& products() { return of_block<ProductsOfThreads>().of[current->linear]; }

float from_bits(std::uint16_t bits, Element element) {
  return element == Element::bfloat16 ? float_from_bfloat16_bits(bits) : float_from_float16_bits(bits);
}

float element_at(std::uint32_t address, Element element) {
  const void* p = emulation::from_shared_address(swizzled(address));
  std::uint16_t bits = 0;
  std::memcpy(&bits, p, 2);
  return from_bits(bits, element);
}

// The element of an operand at (outer, depth), as the descriptor's fields say.
float element_of(std::uint64_t descriptor, bool by_depth, Element element, int outer, int depth) {
  const auto start = static_cast<std::uint32_t>(descriptor & 0x3fff) << 4;
  const auto leading = static_cast<std::uint32_t>(descriptor >> 16 & 0x3fff) << 4;
  const auto stride = static_cast<std::uint32_t>(descriptor >> 32 & 0x3fff) << 4;
  const auto r = static_cast<std::uint32_t>(outer), k = static_cast<std::uint32_t>(depth);
  if (by_depth) return element_at(start + r / 8 * stride + r % 8 * 128 + k * 2, element);
  return element_at(start + r / 64 * leading + k / 8 * stride + k % 8 * 128 + r % 64 * 2, element);
}

void compute(const Product& p) {
  constexpr int kDepth = 16;
  const int group = current->lane / 4, pair = 2 * (current->lane % 4);
  const int first_row = current->warp % 4 * 16 + group;
  float a[2][kDepth], b[kDepth];
  for (int half = 0; half < 2; ++half) {
    for (int k = 0; k < kDepth; ++k) {
      if (p.a_in_registers) {
        const std::uint32_t two = p.registers[k % 8 / 2][half + 2 * (k / 8)];
        a[half][k] = from_bits(static_cast<std::uint16_t>(two >> (16 * (k % 2))), p.element);
      } else {
        a[half][k] = element_of(p.a, p.a_by_depth, p.element, first_row + 8 * half, k);
      }
    }
  }
  for (int tile = 0; tile < p.columns / 8; ++tile) {
    for (int which = 0; which < 2; ++which) {
      for (int k = 0; k < kDepth; ++k) b[k] = element_of(p.b, p.b_by_depth, p.element, tile * 8 + pair + which, k);
      for (int half = 0; half < 2; ++half) {
        float& sum = p.sums[tile * 4 + half * 2 + which];
        float total = p.accumulate ? sum : 0.0f;
        for (int k = 0; k < kDepth; ++k) total += a[half][k] * b[k];
        sum = total;
      }
    }
  }
}

// Every lane of the warp is here.
void meet(const char* what, int line) {
  emulation::meet_warp({what, __FILE__, line}, 0xffffffffu, nullptr, nullptr,
                       [](const void* const*, void* const*, unsigned) {});
}

// Lanes tell each other their operands: the descriptors must agree, and A's registers are shared by fours.
void exchange(const void* const* in, void* const* out, unsigned) {
  for (int lane = 0; lane < emulation::kWarpSize; ++lane) {
    const auto& first = *static_cast<const Product*>(in[0]);
    auto& mine = *static_cast<Product*>(out[lane]);
    if (mine.a != first.a || mine.b != first.b || mine.accumulate != first.accumulate) mine.columns = 0;
    for (int other = 0; other < 4; ++other) {
      const auto& theirs = *static_cast<const Product*>(in[lane / 4 * 4 + other]);
      for (int r = 0; r < 4; ++r) mine.registers[other][r] = theirs.registers[0][r];
    }
  }
}

}  // namespace

void start(Product product) {
  Products& p = products();
  const Place place{"multiply_64", __FILE__, __LINE__};
  if (!p.fenced) fail(place, "no product_fence since the last wait");
  const Product given = product;
  emulation::meet_warp(place, 0xffffffffu, &given, &product, &exchange);
  if (product.columns == 0) fail(place, "the lanes of a warp give different operands");
  if ((!product.a_in_registers && product.a >> 62 != 1) || product.b >> 62 != 1) {
    fail(place, "the operand is not swizzled by 128 bytes");
  }
  p.open.push_back(product);
}

void fence() {
  meet("product_fence", __LINE__);
  products().fenced = true;
}

void commit() {
  meet("product_commit", __LINE__);
  Products& p = products();
  p.groups.push_back(std::move(p.open));
  p.open.clear();
}

void wait(int pending) {
  Products& p = products();
  while (static_cast<int>(p.groups.size()) > pending) {
    for (const Product& product : p.groups.front()) compute(product);
    p.groups.pop_front();
  }
  if (p.groups.empty()) p.fenced = false;
  meet("product_wait", __LINE__);  // the warp goes on as one: what a lane says then, it says for all
}

}  // namespace emulated
}  // namespace sentcore::ptx
