// Waiting for what another thread does soon: spin for a moment, then sleep, so that waiting long costs no CPU.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>

namespace pagedcore {

inline void pause_cpu() noexcept {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

/// Waits for `ready` by spinning for `limit`; whether it became true.
template <class Ready>
bool spin(std::chrono::microseconds limit, const Ready& ready) {
  if (ready()) return true;
  if (limit.count() == 0) return false;
  const auto end = std::chrono::steady_clock::now() + limit;
  do {
    for (int i = 0; i < 16; ++i) {
      if (ready()) return true;
      pause_cpu();
    }
  } while (std::chrono::steady_clock::now() < end);
  return false;
}

/// Spins, then sleeps until `ready`. Whoever changes what `ready` reads (sequentially consistent) calls wake() after.
class WaitPoint {
 public:
  template <class Ready>
  void wait(std::chrono::microseconds limit, const Ready& ready) {
    if (spin(limit, ready)) return;
    std::unique_lock lock(mutex_);
    sleepers_.fetch_add(1);
    condition_.wait(lock, ready);
    sleepers_.fetch_sub(1);
  }
  /// The same until `end` at the latest; whether it became true.
  template <class Ready>
  bool wait_until(std::chrono::microseconds limit, std::chrono::steady_clock::time_point end, const Ready& ready) {
    if (spin(limit, ready)) return true;
    std::unique_lock lock(mutex_);
    sleepers_.fetch_add(1);
    const bool became = condition_.wait_until(lock, end, ready);
    sleepers_.fetch_sub(1);
    return became;
  }
  void wake() noexcept {
    if (sleepers_.load() == 0) return;
    { const std::lock_guard lock(mutex_); }  // a sleeper that counted itself has reached the condition
    condition_.notify_all();
  }

 private:
  std::atomic<int> sleepers_{0};
  std::mutex mutex_;
  std::condition_variable condition_;
};

}  // namespace pagedcore
