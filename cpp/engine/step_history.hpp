// The latest steps of an engine, for those who look at it.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "engine/timeline.hpp"
#include "pagedcore/snapshot.hpp"
#include "pagedcore/step_plan.hpp"

namespace pagedcore {

/// Of one thread. Its memory is its own, so that nothing here can fail but the copy.
class StepHistory {
 public:
  /// `timeline`: where all steps go, if anywhere.
  explicit StepHistory(std::unique_ptr<Timeline> timeline = {}) : timeline_(std::move(timeline)) {}

  /// `picture` has the times; the plan says the rest.
  void add(const StepPlan& plan, StepPicture picture) noexcept {
    picture.step = plan.step;
    picture.sequences = static_cast<std::uint32_t>(plan.sequences.size());
    for (const ScheduledSequence& s : plan.sequences) picture.decode_tokens += s.num_rows == 1;
    picture.prefill_tokens = static_cast<std::uint32_t>(plan.tokens.size()) - picture.decode_tokens;
    picture.preempted = static_cast<std::uint32_t>(plan.preempted.size());
    picture.swaps = static_cast<std::uint32_t>(plan.swap_outs.size() + plan.swap_ins.size());
    picture.copies = static_cast<std::uint32_t>(plan.copies.size());
    steps_[count_++ % steps_.size()] = picture;
    if (timeline_) timeline_->add(picture);
  }
  /// Oldest first.
  void copy_to(std::vector<StepPicture>& steps) const {
    const std::uint64_t kept = std::min<std::uint64_t>(count_, steps_.size());
    steps.reserve(kept);
    for (std::uint64_t i = count_ - kept; i < count_; ++i) steps.push_back(steps_[i % steps_.size()]);
  }

 private:
  std::unique_ptr<Timeline> timeline_;
  std::array<StepPicture, 240> steps_;
  std::uint64_t count_ = 0;
};

}  // namespace pagedcore
