// What the emulator tells the sanitizers. Its own sources are never compiled for ThreadSanitizer: all threads share its
// state on purpose, so what it does to a kernel's memory is announced here.
#pragma once

#include <cstddef>

#ifdef CUDA_EMU_TSAN
extern "C" {
void* __tsan_get_current_fiber();
void* __tsan_create_fiber(unsigned flags);
void __tsan_switch_to_fiber(void* fiber, unsigned flags);
void __tsan_acquire(void* address);
void __tsan_release(void* address);
void __tsan_read_range(void* address, unsigned long bytes);
void __tsan_write_range(void* address, unsigned long bytes);
}
#endif
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace cuda_emu {

// Happens-before edges: what a thread did before release(p) is visible after another's acquire(p).
inline void release([[maybe_unused]] void* p) {
#ifdef CUDA_EMU_TSAN
  __tsan_release(p);
#endif
}
inline void acquire([[maybe_unused]] void* p) {
#ifdef CUDA_EMU_TSAN
  __tsan_acquire(p);
#endif
}

// Accesses that the emulator makes in the name of the running thread.
inline void announce_read([[maybe_unused]] const void* p, [[maybe_unused]] std::size_t bytes) {
#ifdef CUDA_EMU_TSAN
  __tsan_read_range(const_cast<void*>(p), bytes);
#endif
}
inline void announce_write([[maybe_unused]] void* p, [[maybe_unused]] std::size_t bytes) {
#ifdef CUDA_EMU_TSAN
  __tsan_write_range(p, bytes);
#endif
}

inline void forbid([[maybe_unused]] void* p, [[maybe_unused]] std::size_t bytes) {
#ifdef __SANITIZE_ADDRESS__
  __asan_poison_memory_region(p, bytes);
#endif
}
inline void allow([[maybe_unused]] void* p, [[maybe_unused]] std::size_t bytes) {
#ifdef __SANITIZE_ADDRESS__
  __asan_unpoison_memory_region(p, bytes);
#endif
}

}  // namespace cuda_emu
