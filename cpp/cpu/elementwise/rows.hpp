// What the row operations share: when to use the threads, and what a matrix argument must look like.
#pragma once

#include <algorithm>
#include <cstdint>

#include "backend/checks.hpp"
#include "base/text.hpp"
#include "cpu/thread_pool.hpp"
#include "pagedcore/error.hpp"
#include "pagedcore/tensor.hpp"

namespace pagedcore::cpu {

/// Elements that one thread handles in about the time that waking another takes (a few microseconds). The 576 floats of
/// a small model's decode step are far below it.
inline constexpr std::int64_t kElementsPerTask = 16384;

/// body(row) for every row, on the pool when there is work for more than one thread. `work` is the cost of a row in
/// elements. The body must not throw.
template <class Body>
void for_each_row(ThreadPool& pool, std::int64_t rows, std::int64_t work, const Body& body) {
  const std::int64_t rows_per_task = std::max<std::int64_t>(1, kElementsPerTask / std::max<std::int64_t>(1, work));
  if (pool.threads() == 1 || rows <= rows_per_task) {
    for (std::int64_t row = 0; row < rows; ++row) body(row);
    return;
  }
  pool.for_each((rows + rows_per_task - 1) / rows_per_task, [&](std::int64_t task, int) {
    const std::int64_t end = std::min(rows, (task + 1) * rows_per_task);
    for (std::int64_t row = task * rows_per_task; row < end; ++row) body(row);
  });
}

/// Address of a row; T is the element type.
template <class T>
T* row_of(const Tensor& t, std::int64_t row) noexcept {
  return static_cast<T*>(t.data) + row * t.stride;
}

}  // namespace pagedcore::cpu
