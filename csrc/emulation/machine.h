// What the emulated GPU knows of its threads, its block and its work; for the files of this folder that make it up.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <queue>
#include <string>
#include <vector>

#include "emulation/copies.h"
#include "emulation/fiber.h"
#include "emulation/random.h"
#include "emulation/runtime.h"

namespace sentcore::emulation {

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
  std::size_t shared_room = 0;  // bytes of a block, static and dynamic
  void (*body)(void*) = nullptr;
  void* context = nullptr;
  std::string error;

  Random random{0};
  Order order = Order::any;
  bool lazy = false;  // the copy engine works when every thread waits, and not before
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

Runtime& runtime();
Thread& self();                   // the one that runs
void make_ready(Thread& thread);  // its turn comes, at a place in the order that the seed decides
void do_work(std::map<std::uint64_t, Runtime::Work>::iterator work);
std::string text(const Place& place);
std::string block_text();
bool same(const Place& a, const Place& b);

}  // namespace sentcore::emulation
