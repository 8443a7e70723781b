// The ranks above 0 of an engine, as rank 0 sees them. Whether they are threads or processes, it cannot tell.
#pragma once

#include <cstdint>
#include <exception>
#include <functional>
#include <span>

#include "engine/rank_runner.hpp"

namespace pagedcore {

/// Used by the engine thread.
class RankGroup {
 public:
  virtual ~RankGroup() = default;
  /// All ranks begin the step, whose memory stays until finish() or give_up(). May throw std::bad_alloc: none has
  /// begun.
  virtual void start(const RankStep& step) = 0;
  /// Waits until all have run it. lost[i] becomes 1 where one of them lost the block of the i-th move. Throws what a
  /// rank threw.
  virtual void finish(std::span<std::uint8_t> lost) = 0;
  /// Ends the step at all ranks, since rank 0 will not go on with it, and waits for that. Returns what began it: what
  /// a rank threw, or none where it was rank 0. Ranks can then start() again.
  virtual std::exception_ptr give_up(const char* why) noexcept = 0;
  /// Adds what moving their blocks has cost. Between steps.
  virtual void add_to(SwapCounters& counters) const = 0;
  /// As Backend::host_parallel, on the threads of `backend`, rank 0's, and of those ranks that have run their step.
  virtual void host_parallel(Backend& backend, std::int64_t count, const std::function<void(std::int64_t)>& body) = 0;
};

}  // namespace pagedcore
