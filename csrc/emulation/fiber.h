// A stack of its own that runs when it is resumed and stops when it yields.
#pragma once

#include <cstddef>

namespace sentcore::emulation {

class Fiber {
 public:
  // entry(argument) never returns; it yields when it has nothing to do.
  Fiber(void (*entry)(void*), void* argument);
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  void resume();  // from outside: runs the fiber until it yields
  void yield();   // from inside: back to where it was resumed

 private:
  struct Machine;  // what a kind of machine needs to switch stacks
  static void start(Fiber* self);

  void (*entry_)(void*);
  void* argument_;
  char* stack_;
  std::size_t stack_bytes_;
  Machine* machine_;
  // For AddressSanitizer, which has to be told of every switch.
  void* own_fake_stack_ = nullptr;
  void* outer_fake_stack_ = nullptr;
  const void* outer_stack_ = nullptr;
  std::size_t outer_stack_bytes_ = 0;
};

}  // namespace sentcore::emulation
