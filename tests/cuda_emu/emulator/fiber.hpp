// Fibers: stacks that one OS thread switches between, known to ThreadSanitizer and AddressSanitizer.
#pragma once

#include <cstddef>

namespace cuda_emu {

struct Fiber {
  void* stack_pointer = nullptr;
  char* stack = nullptr;  // lowest usable address; a guard page lies below
  std::size_t stack_bytes = 0;
  void* asan_stack = nullptr;  // where AddressSanitizer keeps frames; kept for good, as is what follows
  void* tsan_fiber = nullptr;
};

/// Gives a fiber its stack, once, and makes it start at `entry` when next switched to. `entry` never returns, so its
/// frame is never given back: it is not to be instrumented, nor in the middle of another call when it switches for the
/// last time.
void prepare_fiber(Fiber& fiber, void (*entry)());
/// Takes the calling OS thread as a fiber.
void adopt_thread(Fiber& fiber);
/// Switches without ordering memory between the two.
void switch_fiber(Fiber& from, Fiber& to);
/// To be called first in a fiber's entry.
void enter_fiber();

}  // namespace cuda_emu
