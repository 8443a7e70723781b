// Releasing the GIL around native work, safely up to the end of the process.
#pragma once

#include <nanobind/nanobind.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "base/exception_memory.hpp"

namespace pagedcore::bindings {

/// Set by the atexit callback to the thread that finalizes the interpreter.
inline std::atomic<std::thread::id> finalizing_thread{};

/// Other Python threads run while it exists. A daemon thread that comes back while the interpreter goes away would be
/// unwound by CPython up to 3.13, through C++ frames that cannot be unwound (std::terminate): it sleeps instead, as
/// CPython does from 3.14 on.
class ReleasedGil {
 public:
  ReleasedGil() noexcept {
    take_exception_memory_once();
    state_ = PyEval_SaveThread();
  }
  ReleasedGil(const ReleasedGil&) = delete;
  ReleasedGil& operator=(const ReleasedGil&) = delete;
  ~ReleasedGil() {
    const std::thread::id finalizing = finalizing_thread;
    if (finalizing != std::thread::id{} && finalizing != std::this_thread::get_id()) sleep_forever();
    PyEval_RestoreThread(state_);
  }

 private:
  friend class HeldGil;
  [[noreturn]] static void sleep_forever() {
    std::mutex mutex;
    std::condition_variable never;
    std::unique_lock lock(mutex);
    for (;;) never.wait(lock);
  }

  PyThreadState* state_;
};

/// The GIL again, for a callback amid native work.
class HeldGil {
 public:
  HeldGil() noexcept {
    const std::thread::id finalizing = finalizing_thread;
    if (finalizing != std::thread::id{} && finalizing != std::this_thread::get_id()) ReleasedGil::sleep_forever();
    state_ = PyGILState_Ensure();
  }
  HeldGil(const HeldGil&) = delete;
  HeldGil& operator=(const HeldGil&) = delete;
  ~HeldGil() { PyGILState_Release(state_); }

 private:
  PyGILState_STATE state_;
};

/// Calls a Python function, unless it is None. Ctrl-C that was pressed meanwhile is thrown, as what the function
/// raises.
template <class... Values>
void tell(const nanobind::object& function, Values... values) {
  const HeldGil held;
  if (PyErr_CheckSignals() != 0) throw nanobind::python_error();
  if (!function.is_none()) function(values...);
}

/// For calls that take long and touch no Python object.
using release_gil = nanobind::call_guard<ReleasedGil>;

}  // namespace pagedcore::bindings
