#include "emulator/fiber.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <utility>

#include "emulator/sanitizer.hpp"

#if defined(__x86_64__)
// Saves what a call must preserve, on the stack being left; no system call, unlike swapcontext().
extern "C" void cuda_emu_switch_stack(void** save, void* load);
asm(R"(
.text
.globl cuda_emu_switch_stack
.hidden cuda_emu_switch_stack
.type cuda_emu_switch_stack, @function
cuda_emu_switch_stack:
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
.size cuda_emu_switch_stack, . - cuda_emu_switch_stack
)");
constexpr int kSavedWords = 6;
#elif defined(__aarch64__)
extern "C" void cuda_emu_switch_stack(void** save, void* load);
asm(R"(
.text
.globl cuda_emu_switch_stack
.hidden cuda_emu_switch_stack
.type cuda_emu_switch_stack, %function
cuda_emu_switch_stack:
  stp x29, x30, [sp, #-160]!
  stp x19, x20, [sp, #16]
  stp x21, x22, [sp, #32]
  stp x23, x24, [sp, #48]
  stp x25, x26, [sp, #64]
  stp x27, x28, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x9, sp
  str x9, [x0]
  mov sp, x1
  ldp x19, x20, [sp, #16]
  ldp x21, x22, [sp, #32]
  ldp x23, x24, [sp, #48]
  ldp x25, x26, [sp, #64]
  ldp x27, x28, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  ldp x29, x30, [sp], #160
  ret
.size cuda_emu_switch_stack, . - cuda_emu_switch_stack
)");
#else
#error "the CUDA emulator switches stacks on x86-64 and arm64 only"
#endif

namespace cuda_emu {
namespace {

constexpr std::size_t kStackBytes = 128 << 10;

char* new_stack() {
  const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  void* memory =
      mmap(nullptr, kStackBytes + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED || mprotect(memory, page, PROT_NONE) != 0) {
    std::perror("cuda_emu: no memory for the stack of a thread");
    std::abort();
  }
  return static_cast<char*>(memory) + page;
}

Fiber *switched_from = nullptr, *switched_to = nullptr;

}  // namespace

/// Completes a switch, on the stack that was switched to.
void enter_fiber() {
#ifdef __SANITIZE_ADDRESS__
  const void* bottom = nullptr;
  std::size_t bytes = 0;
  __sanitizer_finish_switch_fiber(switched_to->asan_stack, &bottom, &bytes);
  if (switched_from->stack_bytes == 0) {  // an OS thread's stack, known only now
    switched_from->stack = static_cast<char*>(const_cast<void*>(bottom));
    switched_from->stack_bytes = bytes;
  }
#endif
}

void prepare_fiber(Fiber& fiber, void (*entry)()) {
  if (fiber.stack == nullptr) {
    fiber.stack = new_stack();
    fiber.stack_bytes = kStackBytes;
    allow(fiber.stack, fiber.stack_bytes);
#ifdef CUDA_EMU_TSAN
    fiber.tsan_fiber = __tsan_create_fiber(0);  // kept for good: making one takes as long as running a small kernel
#endif
  }
  auto* top = reinterpret_cast<std::uintptr_t*>(fiber.stack + fiber.stack_bytes);
#if defined(__x86_64__)
  top -= 2;  // at entry the stack is 8 bytes off a multiple of 16, as after a call
  *top = reinterpret_cast<std::uintptr_t>(entry);
  top -= kSavedWords;
  for (int i = 0; i < kSavedWords; ++i) top[i] = 0;
#else
  top -= 20;
  for (int i = 0; i < 20; ++i) top[i] = 0;
  top[1] = reinterpret_cast<std::uintptr_t>(entry);  // x30
#endif
  fiber.stack_pointer = top;
}

void adopt_thread(Fiber& fiber) {
  fiber = Fiber{};
#ifdef CUDA_EMU_TSAN
  fiber.tsan_fiber = __tsan_get_current_fiber();
#endif
}

void switch_fiber(Fiber& from, Fiber& to) {
  switched_from = &from;
  switched_to = &to;
#ifdef CUDA_EMU_TSAN
  constexpr unsigned no_sync = 1;
  __tsan_switch_to_fiber(to.tsan_fiber, no_sync);
#endif
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_start_switch_fiber(&from.asan_stack, to.stack, to.stack_bytes);
#endif
  cuda_emu_switch_stack(&from.stack_pointer, to.stack_pointer);
  enter_fiber();
}

}  // namespace cuda_emu
