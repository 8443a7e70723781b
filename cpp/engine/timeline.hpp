// When every step was planned and computed, and each operation of it, in a file that viewers of traces open: the JSON
// form of the Trace Event Format, an array of events.
#pragma once

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include "backend/timed_backend.hpp"
#include "pagedcore/snapshot.hpp"

namespace pagedcore {

/// A file that cannot be written any more ends the timeline and nothing else. Engine thread only, but for operations().
class Timeline {
 public:
  /// Throws Io when the file cannot be created.
  Timeline(const std::string& path, std::size_t ranks);
  ~Timeline();
  Timeline(const Timeline&) = delete;
  Timeline& operator=(const Timeline&) = delete;

  /// Where the operations of a rank go while a step runs. Each rank appends to its own only.
  std::vector<TimedOperation>& operations(std::size_t rank) noexcept { return operations_[rank]; }
  /// A step that has just ended on all ranks, with the operations since the one before it, which are then forgotten.
  void add(const StepPicture& step) noexcept;

 private:
  using Time = std::chrono::steady_clock::time_point;
  struct Span {
    std::string name;
    std::size_t rank;
    Time begin, end;
  };
  void write(const Span& span, const std::string& arguments);
  void put(const std::string& event);

  const Time start_ = std::chrono::steady_clock::now();
  std::FILE* file_;
  bool is_first_ = true;
  std::vector<std::vector<TimedOperation>> operations_;  // [ranks]
};

}  // namespace pagedcore
