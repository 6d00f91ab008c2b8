// Where threads wait: for each other, for something to come true, for what the machine does beside them.

#include <utility>

#include "emulation/machine.h"

namespace sentcore::emulation {

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

void do_work(std::map<std::uint64_t, Runtime::Work>::iterator work) {
  const std::function<void()> run = std::move(work->second.run);
  runtime().works.erase(work);
  run();
  changed();
}

void finish(std::uint64_t number) {
  const auto found = runtime().works.find(number);
  if (found != runtime().works.end()) do_work(found);
}

std::shared_ptr<void>& block_object(const void* key) { return runtime().objects[key]; }

}  // namespace sentcore::emulation
