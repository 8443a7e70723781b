// What the C++ runtime keeps of a thread's exceptions is taken when the thread first throws. Where the library was
// loaded at run time that is an allocation, and the C library ends the process when it fails: so it is made while
// nothing is at stake, where a thread starts or first calls.
#pragma once

namespace pagedcore {

/// The calling thread can throw from now on, whatever memory is left.
inline void take_exception_memory() noexcept {
  try {
    throw 0;
  } catch (int) {  // NOLINT: nothing is wrong
  }
}

/// The same for threads that are not ours, once each. Its flag lies in memory that each thread has from its start.
inline void take_exception_memory_once() noexcept {
#if defined(__GNUC__) && !defined(__APPLE__)
  [[gnu::tls_model("initial-exec")]] static thread_local bool taken = false;
#else
  static thread_local bool taken = false;
#endif
  if (taken) return;
  taken = true;
  take_exception_memory();
}

}  // namespace pagedcore
