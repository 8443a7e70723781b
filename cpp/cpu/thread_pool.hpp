// The backend's own threads. Worker 0 is the calling thread; the others spin for a moment between operations of a step
// and then sleep, so that an idle engine costs no CPU.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

namespace pagedcore::cpu {

class ThreadPool {
 public:
  /// `threads` >= 1, the caller included. Starts threads - 1 threads, with all signals blocked.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const noexcept;

  /// As Backend::host_parallel: body(i) for every i in [0, count), all of them even when some throw; waits, then
  /// rethrows the exception of the smallest i.
  void for_each_rethrowing(std::int64_t count, const std::function<void(std::int64_t)>& body);

  /// body(i, worker) for every i in [0, count), claimed in ascending order by whichever worker is free; waits. Which
  /// worker runs an i varies, so results may not depend on it. The body must not throw. Not reentrant; one caller at a
  /// time.
  template <class Body>
  void for_each(std::int64_t count, const Body& body) {
    run(
        count, [](const void* b, std::int64_t i, int worker) { (*static_cast<const Body*>(b))(i, worker); }, &body);
  }

 private:
  using Task = void (*)(const void* body, std::int64_t index, int worker);
  void run(std::int64_t count, Task task, const void* body);

  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace pagedcore::cpu
