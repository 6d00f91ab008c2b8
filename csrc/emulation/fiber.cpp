#include "emulation/fiber.h"

#include <sys/mman.h>

#include <cstdint>
#include <new>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace sentcore::emulation {

#if defined(__x86_64__)

// ucontext's switch asks the kernel for the signal mask each time; this one saves the registers a call must keep.
extern "C" void sentcore_emulation_switch(void** save, void* load);
asm(R"(
.text
.globl sentcore_emulation_switch
.hidden sentcore_emulation_switch
.type sentcore_emulation_switch, @function
sentcore_emulation_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size sentcore_emulation_switch, .-sentcore_emulation_switch
)");

struct Fiber::Machine {
  void* inner = nullptr;
  void* outer = nullptr;

  static thread_local Fiber* starting;
  static void first() { Fiber::start(starting); }

  Machine(Fiber*, char* stack, std::size_t bytes) {
    // As sentcore_emulation_switch leaves a stack: six registers, then where to go; aligned as at a function's entry.
    auto* top = reinterpret_cast<std::uint64_t*>(stack + bytes);
    top[-2] = reinterpret_cast<std::uint64_t>(&first);
    for (int i = 3; i <= 8; ++i) top[-i] = 0;
    inner = top - 8;
  }
  void enter(Fiber* self) {
    starting = self;
    sentcore_emulation_switch(&outer, inner);
  }
  void leave() { sentcore_emulation_switch(&inner, outer); }
};
thread_local Fiber* Fiber::Machine::starting = nullptr;

#else

struct Fiber::Machine {
  ucontext_t inner;
  ucontext_t outer;

  static void first(unsigned low, unsigned high) {
    Fiber::start(reinterpret_cast<Fiber*>(static_cast<std::uintptr_t>(low) | static_cast<std::uintptr_t>(high) << 32));
  }

  Machine(Fiber* self, char* stack, std::size_t bytes) {
    getcontext(&inner);
    inner.uc_stack.ss_sp = stack;
    inner.uc_stack.ss_size = bytes;
    inner.uc_link = nullptr;
    const auto address = static_cast<std::uint64_t>(reinterpret_cast<std::uintptr_t>(self));
    makecontext(&inner, reinterpret_cast<void (*)()>(&first), 2, static_cast<unsigned>(address),
                static_cast<unsigned>(address >> 32));
  }
  void enter(Fiber*) { swapcontext(&outer, &inner); }
  void leave() { swapcontext(&inner, &outer); }
};

#endif

Fiber::Fiber(void (*entry)(void*), void* argument) : entry_(entry), argument_(argument) {
#ifdef __SANITIZE_ADDRESS__
  stack_bytes_ = 256 << 10;
#else
  stack_bytes_ = 64 << 10;
#endif
  void* memory = mmap(nullptr, stack_bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  stack_ = static_cast<char*>(memory);
  machine_ = new Machine(this, stack_, stack_bytes_);
}

Fiber::~Fiber() {
#ifdef __SANITIZE_ADDRESS__
  // A fiber is dropped where it stands; marks of its frames must not outlive it.
  ASAN_UNPOISON_MEMORY_REGION(stack_, stack_bytes_);
#endif
  delete machine_;
  munmap(stack_, stack_bytes_);
}

void Fiber::start(Fiber* self) {
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(nullptr, &self->outer_stack_, &self->outer_stack_bytes_);
#endif
  self->entry_(self->argument_);
}

void Fiber::resume() {
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_start_switch_fiber(&outer_fake_stack_, stack_, stack_bytes_);
#endif
  machine_->enter(this);
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(outer_fake_stack_, nullptr, nullptr);
#endif
}

void Fiber::yield() {
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_start_switch_fiber(&own_fake_stack_, outer_stack_, outer_stack_bytes_);
#endif
  machine_->leave();
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(own_fake_stack_, &outer_stack_, &outer_stack_bytes_);
#endif
}

}  // namespace sentcore::emulation
