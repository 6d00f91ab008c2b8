#include "emulation/runtime.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <iterator>
#include <map>
#include <memory>
#include <mutex>
#include <queue>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "emulation/copies.h"
#include "emulation/fiber.h"
#include "emulation/random.h"

namespace sentcore::emulation {

ThreadView* current = nullptr;
uint3 block_index{};
dim3 block_dim{};
dim3 grid_dim{};

namespace {

enum class State { ready, at_barrier, at_warp, waiting, exited };

struct Thread {
  ThreadView view{};
  PendingCopies copies;
  State state = State::exited;
  Place place{};
  // At a warp instruction:
  unsigned mask = 0;
  const void* in = nullptr;
  void* out = nullptr;
  std::function<bool()> is_over;  // of what it is waiting for
  std::unique_ptr<Fiber> fiber;
};

enum class Order { any, warps_ahead, threads_ahead };

// Freed and allocated anew for each block, at its exact size, so that AddressSanitizer guards its ends.
using SharedBytes = std::unique_ptr<unsigned char, void (*)(void*)>;

struct Runtime {
  std::mutex one_launch;
  std::vector<std::unique_ptr<Thread>> threads;  // their fibers are kept from block to block
  int count = 0;                                 // threads of a block
  int waiting = 0;                               // at the block's barrier
  int exited = 0;
  void (*body)(void*) = nullptr;
  void* context = nullptr;
  std::string error;

  Random random{0};
  Order order = Order::any;
  std::vector<std::uint64_t> thread_rank, warp_rank;
  struct Turn {
    std::uint64_t rank;
    int thread;
    bool operator<(const Turn& other) const { return rank > other.rank; }  // the lowest rank first
  };
  std::priority_queue<Turn> turns;

  std::map<const void*, std::pair<SharedBytes, std::size_t>> shared;
  int dynamic_key = 0;
  std::map<const void*, std::shared_ptr<void>> objects;

  struct Work {
    Place place;
    std::function<void()> run;
  };
  std::map<std::uint64_t, Work> works;  // of the copy engine, still to be done
  std::uint64_t next_work = 0;
};

Runtime& runtime() {
  static Runtime* instance = new Runtime;  // never destroyed: fibers may outlive static objects
  return *instance;
}

Thread& self() { return *runtime().threads[current->linear]; }

void make_ready(Thread& thread) {
  Runtime& r = runtime();
  thread.state = State::ready;
  std::uint64_t rank = r.random.next();
  if (r.order == Order::warps_ahead) rank = (r.warp_rank[thread.view.warp] & ~0xffffull) | (rank & 0xffffull);
  if (r.order == Order::threads_ahead) rank = r.thread_rank[thread.view.linear];
  r.turns.push({rank, thread.view.linear});
}

void enter_thread(void* argument) {
  auto* thread = static_cast<Thread*>(argument);
  for (;;) {  // once for each block
    runtime().body(runtime().context);
    thread->state = State::exited;
    ++runtime().exited;
    thread->fiber->yield();
  }
}

std::string text(const Place& place) {
  const char* name = std::strrchr(place.file, '/');
  return std::string(place.what) + " (" + (name ? name + 1 : place.file) + ":" + std::to_string(place.line) + ")";
}

bool same(const Place& a, const Place& b) {
  return a.line == b.line && (a.file == b.file || std::strcmp(a.file, b.file) == 0) &&
         (a.what == b.what || std::strcmp(a.what, b.what) == 0);
}

std::string block_text() {
  std::ostringstream s;
  s << "block (" << block_index.x << ", " << block_index.y << ", " << block_index.z << ")";
  return s.str();
}

std::string deadlock_text() {
  Runtime& r = runtime();
  std::map<std::string, int> where;
  for (int i = 0; i < r.count; ++i) {
    const Thread& t = *r.threads[i];
    if (t.state == State::exited) {
      ++where["have left the kernel"];
    } else {
      ++where["wait at " + text(t.place)];
    }
  }
  std::ostringstream s;
  s << "deadlock in " << block_text() << ": of " << r.count << " threads ";
  const char* separator = "";
  for (const auto& [what, threads] : where) {
    s << separator << threads << " " << what;
    separator = ", ";
  }
  return s.str();
}

void start_block(unsigned seed, std::uint64_t block, std::size_t shared_bytes) {
  Runtime& r = runtime();
  r.random.state = (static_cast<std::uint64_t>(seed) << 32) ^ (block * 0xD6E8FEB86659FD93ull);
  r.random.next();
  r.order = static_cast<Order>(r.random.next() % 3);
  r.waiting = r.exited = 0;
  r.turns = {};
  r.thread_rank.resize(static_cast<std::size_t>(r.count));
  r.warp_rank.resize(static_cast<std::size_t>(r.count + kWarpSize - 1) / kWarpSize);
  for (auto& rank : r.thread_rank) rank = r.random.next();
  for (auto& rank : r.warp_rank) rank = r.random.next();
  r.shared.clear();
  r.objects.clear();
  r.works.clear();
  if (shared_bytes > 0) shared_object(&r.dynamic_key, shared_bytes);
  for (int i = 0; i < r.count; ++i) {
    Thread& t = *r.threads[i];
    const unsigned n = static_cast<unsigned>(i);
    t.view = {{n % block_dim.x, n / block_dim.x % block_dim.y, n / (block_dim.x * block_dim.y)},
              i,
              i % kWarpSize,
              i / kWarpSize,
              &t.copies};
    t.copies = {};
    make_ready(t);
  }
}

void do_work(std::map<std::uint64_t, Runtime::Work>::iterator work) {
  const std::function<void()> run = std::move(work->second.run);
  runtime().works.erase(work);
  run();
  changed();
}

void run_block() {
  Runtime& r = runtime();
  while (r.error.empty() && !(r.turns.empty() && r.works.empty())) {
    if (!r.works.empty() && (r.turns.empty() || r.random.next() % 8 == 0)) {
      if (r.exited == r.count) {
        r.error = block_text() + " has ended before the work of " + text(r.works.begin()->second.place) + " was done";
        break;
      }
      do_work(std::next(r.works.begin(), static_cast<std::ptrdiff_t>(r.random.next() % r.works.size())));
      continue;
    }
    Thread& t = *r.threads[r.turns.top().thread];
    r.turns.pop();
    current = &t.view;
    t.fiber->resume();
  }
  current = nullptr;
  if (r.error.empty() && r.exited < r.count) r.error = deadlock_text();
  r.shared.clear();
  if (r.error.empty()) return;
  r.threads.clear();  // fibers stand in the middle of the kernel
  std::string message;
  message.swap(r.error);
  throw std::runtime_error("emulated GPU: " + message);
}

unsigned seed_from_environment() {
  const char* value = std::getenv("SENTCORE_EMULATION_SEED");
  return value ? static_cast<unsigned>(std::strtoul(value, nullptr, 10)) : 0u;
}

}  // namespace

void run_grid(dim3 grid, dim3 block, std::size_t shared_bytes, void (*body)(void*), void* context) {
  Runtime& r = runtime();
  const std::lock_guard<std::mutex> lock(r.one_launch);
  grid_dim = grid;
  block_dim = block;
  r.count = static_cast<int>(block.x * block.y * block.z);
  r.body = body;
  r.context = context;
  while (static_cast<int>(r.threads.size()) < r.count) {
    r.threads.push_back(std::make_unique<Thread>());
    Thread* thread = r.threads.back().get();
    thread->fiber = std::make_unique<Fiber>(&enter_thread, thread);
  }
  const unsigned seed = seed_from_environment();
  std::vector<std::uint64_t> blocks(static_cast<std::size_t>(grid.x) * grid.y * grid.z);
  Random random{seed};
  for (std::size_t i = 0; i < blocks.size(); ++i) blocks[i] = i;
  for (std::size_t i = blocks.size(); i > 1; --i) std::swap(blocks[i - 1], blocks[random.next() % i]);
  for (const std::uint64_t b : blocks) {
    block_index = {static_cast<unsigned>(b % grid.x), static_cast<unsigned>(b / grid.x % grid.y),
                   static_cast<unsigned>(b / grid.x / grid.y)};
    start_block(seed, b, shared_bytes);
    run_block();
  }
}

void fail(Place place, const char* message) {
  Thread& t = self();
  runtime().error =
      "thread " + std::to_string(t.view.linear) + " of " + block_text() + ", at " + text(place) + ": " + message;
  for (;;) t.fiber->yield();  // never resumed
}

void pause() {
  Thread& t = self();
  make_ready(t);
  t.fiber->yield();
}

void meet_block(Place place) {
  Runtime& r = runtime();
  Thread& t = self();
  t.state = State::at_barrier;
  t.place = place;
  if (++r.waiting == r.count) {
    for (int i = 0; i < r.count; ++i) {
      const Place& other = r.threads[i]->place;
      if (!same(other, place)) {
        fail(place, ("a thread of the block waits at another barrier, " + text(other)).c_str());
      }
    }
    r.waiting = 0;
    for (int i = 0; i < r.count; ++i) make_ready(*r.threads[i]);
  }
  t.fiber->yield();
}

void meet_warp(Place place, unsigned mask, const void* in, void* out, Exchange exchange) {
  Runtime& r = runtime();
  Thread& t = self();
  if (!(mask >> t.view.lane & 1u)) fail(place, "the calling lane is not in the mask");
  t.state = State::at_warp;
  t.place = place;
  t.mask = mask;
  t.in = in;
  t.out = out;
  const void* all_in[kWarpSize] = {};
  void* all_out[kWarpSize] = {};
  const int first = t.view.warp * kWarpSize;
  bool complete = true;
  for (int lane = 0; lane < kWarpSize; ++lane) {
    if (!(mask >> lane & 1u)) continue;
    if (first + lane >= r.count) fail(place, "the mask names a lane that the block does not have");
    const Thread& other = *r.threads[first + lane];
    if (other.state != State::at_warp || other.mask != mask) {
      complete = false;
    } else if (!same(other.place, place)) {
      fail(place, ("a lane of the mask waits elsewhere, at " + text(other.place)).c_str());
    }
    all_in[lane] = other.in;
    all_out[lane] = other.out;
  }
  if (complete) {
    exchange(all_in, all_out, mask);
    for (int lane = 0; lane < kWarpSize; ++lane) {
      if (mask >> lane & 1u) make_ready(*r.threads[first + lane]);
    }
  }
  t.fiber->yield();
}

void wait_until(Place place, std::function<bool()> ready) {
  if (ready()) return pause();
  Thread& t = self();
  t.state = State::waiting;
  t.place = place;
  t.is_over = std::move(ready);
  t.fiber->yield();
}

void changed() {
  Runtime& r = runtime();
  for (int i = 0; i < r.count; ++i) {
    Thread& t = *r.threads[i];
    if (t.state != State::waiting || !t.is_over()) continue;
    t.is_over = nullptr;
    make_ready(t);
  }
}

std::uint64_t later(Place place, std::function<void()> work) {
  Runtime& r = runtime();
  r.works.emplace(r.next_work, Runtime::Work{place, std::move(work)});
  return r.next_work++;
}

void finish(std::uint64_t number) {
  const auto found = runtime().works.find(number);
  if (found != runtime().works.end()) do_work(found);
}

std::shared_ptr<void>& block_object(const void* key) { return runtime().objects[key]; }

void* shared_object(const void* key, std::size_t bytes) {
  auto found = runtime().shared.find(key);
  if (found == runtime().shared.end()) {
    void* memory = nullptr;
    if (posix_memalign(&memory, 128, bytes) != 0) throw std::bad_alloc();
    std::memset(memory, kPoison, bytes);
    SharedBytes owned(static_cast<unsigned char*>(memory), &std::free);
    found = runtime().shared.emplace(key, std::make_pair(std::move(owned), bytes)).first;
  }
  return found->second.first.get();
}

void* dynamic_shared() {
  const auto found = runtime().shared.find(&runtime().dynamic_key);
  return found == runtime().shared.end() ? nullptr : found->second.first.get();
}

bool is_shared(const void* p, std::size_t bytes) {
  const auto* begin = static_cast<const unsigned char*>(p);
  return std::any_of(runtime().shared.begin(), runtime().shared.end(), [&](const auto& object) {
    const unsigned char* memory = object.second.first.get();
    return begin >= memory && begin + bytes <= memory + object.second.second;
  });
}

// Some bytes past a multiple of 1024, so that a kernel that needs more than 128 bytes' alignment has to see to it.
constexpr std::uint32_t kFirstAddress = 1024 + 128;

std::uint32_t shared_address(const void* p) {
  const auto* begin = static_cast<const unsigned char*>(dynamic_shared());
  return kFirstAddress + static_cast<std::uint32_t>(static_cast<const unsigned char*>(p) - begin);
}

void* from_shared_address(std::uint32_t address) {
  return static_cast<unsigned char*>(dynamic_shared()) + (address - kFirstAddress);
}

}  // namespace sentcore::emulation
