#include "emulation/runtime.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <sstream>
#include <stdexcept>
#include <utility>

#include "emulation/machine.h"

namespace sentcore::emulation {

ThreadView* current = nullptr;
uint3 block_index{};
dim3 block_dim{};
dim3 grid_dim{};

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

namespace {

void enter_thread(void* argument) {
  auto* thread = static_cast<Thread*>(argument);
  for (;;) {  // once for each block
    runtime().body(runtime().context);
    // No wait is for such copies: on a GPU they may land on whatever was written there since.
    if (!thread->copies.open.empty() && runtime().error.empty()) {
      runtime().error = "thread " + std::to_string(thread->view.linear) + " of " + block_text() +
                        " has left the kernel with copies that are in no group, which no wait was for";
    }
    thread->state = State::exited;
    ++runtime().exited;
    thread->fiber->yield();
  }
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
  r.lazy = r.random.next() % 2 == 0;
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

void run_block() {
  Runtime& r = runtime();
  while (r.error.empty() && !(r.turns.empty() && r.works.empty())) {
    if (!r.works.empty() && (r.turns.empty() || (!r.lazy && r.random.next() % 8 == 0))) {
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
  std::size_t shared = 0;
  for (const auto& object : r.shared) shared += object.second.second;
  if (r.error.empty() && shared > r.shared_room) {
    r.error = block_text() + " has " + std::to_string(shared) + " bytes of shared memory, static and dynamic, where " +
              std::to_string(r.shared_room) + " are given";
  }
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

void run_grid(dim3 grid, dim3 block, std::size_t shared_bytes, std::size_t shared_room, void (*body)(void*),
              void* context) {
  Runtime& r = runtime();
  const std::lock_guard<std::mutex> lock(r.one_launch);
  grid_dim = grid;
  block_dim = block;
  r.count = static_cast<int>(block.x * block.y * block.z);
  r.shared_room = shared_room;
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

}  // namespace sentcore::emulation
