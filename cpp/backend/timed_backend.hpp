// A backend that notes when each of its operations ran.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <vector>

#include "pagedcore/backend.hpp"

namespace pagedcore {

/// One operation: out [rows, columns], of a product from in [rows, inner].
struct TimedOperation {
  using Time = std::chrono::steady_clock::time_point;
  const char* name;  // of the member of Backend
  std::int64_t rows, columns, inner;
  Time begin, end;
};

/// Does what `backend`, whose operations must be done when they return, does, and appends each operation of a step to
/// `operations`, which must outlive it. Operations for which there is no memory are left out.
std::unique_ptr<Backend> make_timed(std::unique_ptr<Backend> backend, std::vector<TimedOperation>& operations);

}  // namespace pagedcore
