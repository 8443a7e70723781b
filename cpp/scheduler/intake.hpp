// The draft of a commit: what the result of a step says, checked, and the forks that follow from it. Like the draft of
// a plan it sees the state and cannot change it.
#pragma once

#include <cstdint>
#include <vector>

#include "scheduler/state.hpp"

namespace pagedcore::sched {

struct Draw {
  TokenId token = -1;
  bool stop = false;
};

/// A sample or beam that starts from another one of its request.
struct Fork {
  const Request* request = nullptr;
  std::uint32_t sample = 0;
  SequenceId parent{};
  SequenceId child{};
  std::uint32_t length = 0;
  PrefixMatch match{};   // from here instead, where it has tokens: what the cache still has of the sample itself
  bool is_beam = false;  // of a search that goes on, not of a group that starts
};

/// One beam search between two steps. All vectors: [children].
struct BeamStep {
  const Request* request = nullptr;
  std::vector<BeamChild> children;
  std::vector<std::uint32_t> places;
  std::vector<std::vector<TokenId>> tokens;  // of forks: the parent's, with room for one more
  std::vector<SequenceId> sequences;         // of forks
};

class Intake {
 public:
  explicit Intake(const SchedulerState& state) : state_(state) {}

  /// Throws InvalidArgument for a result that does not answer the step in flight, and std::bad_alloc.
  void read(const StepResult& result);
  void clear() noexcept;

  bool has_failed(std::size_t work) const noexcept { return failed_[work] != 0; }
  const Draw& draw(std::size_t index) const noexcept { return draws_[index]; }
  const std::vector<Fork>& forks() const noexcept { return forks_; }
  std::vector<BeamStep>& beam_steps() noexcept { return beam_steps_; }
  const std::vector<BeamStep>& beam_steps() const noexcept { return beam_steps_; }

 private:
  void read_tokens(const StepResult& result);
  void check_beams(const StepResult& result) const;
  bool is_sampled_now(const Request& request) const noexcept;
  SequenceId fork(Fork fork);
  void fork_samples(const Work& work);
  PrefixMatch left_over(const Request& request, const Sample& sample, SequenceId parent) const;
  void advance(const BeamResult& result);

  const SchedulerState& state_;
  std::vector<Draw> draws_;
  std::vector<std::uint8_t> drawn_;   // [draws]
  std::vector<std::uint8_t> failed_;  // [work in flight]
  std::vector<Fork> forks_;
  std::vector<BeamStep> beam_steps_;
};

}  // namespace pagedcore::sched
