// Fibers: stacks that one OS thread switches between, known to ThreadSanitizer and AddressSanitizer.
#pragma once

#include <cstddef>

namespace cuda_emu {

struct Fiber {
  void* stack_pointer = nullptr;
  char* stack = nullptr;  // lowest usable address; a guard page lies below
  std::size_t stack_bytes = 0;
  void* asan_stack = nullptr;
  void* tsan_fiber = nullptr;
};

/// Gives a fiber its stack, once, and makes it start at `entry` (which never returns) when next switched to.
void prepare_fiber(Fiber& fiber, void (*entry)());
/// Takes the calling OS thread as a fiber.
void adopt_thread(Fiber& fiber);
/// Switches without ordering memory between the two. `ends`: `from` will only be prepared again.
void switch_fiber(Fiber& from, Fiber& to, bool ends = false);
/// To be called first in a fiber's entry.
void enter_fiber();

}  // namespace cuda_emu
