// The state behind Scheduler, and the draft of a plan.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "kv/flat_map.hpp"
#include "pagedcore/scheduler.hpp"
#include "scheduler/request.hpp"

namespace pagedcore::sched {

/// What one sequence does in a step: compute [first, first + rows), then sample the last row for
/// [sample, sample + num_samples).
struct Work {
  Request* request = nullptr;  // null once the request is gone
  std::uint32_t sample = 0;
  SequenceId sequence{};
  std::uint32_t first = 0;
  std::uint32_t rows = 0;
  std::uint32_t num_samples = 0;
  std::uint32_t first_draw = 0;  // in the list of the step's drawn tokens

  std::uint32_t end() const noexcept { return first + rows; }
};

struct Admission {
  Request* request = nullptr;
  std::size_t work = 0;  // index of its work
  PrefixMatch match;
};

/// A plan in the making: decisions only, tried on scratch; nothing else has changed yet.
struct Draft {
  std::optional<KvScratch> scratch;
  std::vector<Work> work;
  std::vector<Request*> victims;
  std::vector<Admission> admissions;
  std::uint32_t rows_left = 0;
  std::uint32_t sequences_left = 0;
  std::uint64_t promised = 0;         // blocks that running requests still need for the tokens they know, and one more
  std::uint64_t running_samples = 0;  // unfinished ones of all running requests

  bool is_full() const noexcept { return rows_left == 0 || sequences_left == 0; }
  void clear() noexcept {
    for (Request* victim : victims) victim->evicted = false;
    scratch.reset();
    work.clear();
    victims.clear();
    admissions.clear();
  }
};

}  // namespace pagedcore::sched

namespace pagedcore {

struct Scheduler::Impl {
  Impl(const SchedulerConfig& config, const KvCacheConfig& cache);

  // admission.cpp
  void validate(const SchedulerRequest& request) const;
  void admit();
  bool is_being_computed(const std::vector<TokenId>& tokens, std::uint32_t has, std::uint32_t most,
                         std::uint64_t salt) const noexcept;
  // victim.cpp
  bool make_room(const sched::Request& request);
  void preempt(sched::Request& request) noexcept;
  // plan.cpp
  StepPlan plan();
  void decide();
  void continue_running(sched::Request& request);
  static bool is_ready(const sched::Request& request) noexcept;
  void add_work(sched::Request& request, std::uint32_t sample, SequenceId sequence, std::uint32_t first,
                std::uint32_t rows);
  std::uint64_t blocks_promised(const sched::Request& request, const sched::Sample& sample, std::uint32_t has) const;
  std::uint64_t blocks_after_start(const sched::Request& request, std::uint32_t leader, std::uint32_t has) const;
  StepPlan draw_up() const;
  void prepare_cache();
  void apply(StepPlan& plan);
  // commit.cpp
  struct Draw {
    TokenId token = -1;
    bool stop = false;
  };
  struct Fork {
    sched::Request* request = nullptr;
    std::uint32_t sample = 0;
    SequenceId sequence{};
    bool is_beam = false;  // of a search that goes on, not of a group that starts
  };
  std::vector<SampleUpdate> commit(const StepResult& result);
  void collect(const StepResult& result);
  void prepare_samples(std::vector<SampleUpdate>& updates);
  void prepare_forks(const sched::Work& work);
  void fork(sched::Request& request, std::uint32_t sample, SequenceId parent, std::uint32_t length, bool is_beam);
  void finish_sample(sched::Request& request, std::uint32_t sample, FinishReason reason) noexcept;
  void take_in(const sched::Work& work, std::vector<SampleUpdate>& updates);
  // beams.cpp
  /// One beam search between two steps. All vectors: [children].
  struct BeamStep {
    sched::Request* request = nullptr;
    std::vector<BeamChild> children;
    std::vector<std::uint32_t> places;
    std::vector<std::vector<TokenId>> tokens;  // of forks: the parent's, with room for one more
    std::vector<SequenceId> sequences;         // of forks
  };
  void check_beams(const StepResult& result) const;
  bool is_sampled_now(const sched::Request& request) const noexcept;
  void prepare_beams(const BeamResult& result);
  void advance_beams(BeamStep& step, std::vector<SampleUpdate>& updates) noexcept;
  static void plan_forks(sched::Request& request) noexcept;
  // scheduler.cpp
  void remove(sched::Request& request) noexcept;
  sched::Request* find(RequestId id) const noexcept;
  void check() const;

  SchedulerConfig config;
  KvCacheConfig cache_config;
  KvCacheManager cache;
  std::uint32_t watermark_blocks = 0;

  kv::FlatMap<std::unique_ptr<sched::Request>> requests;  // by RequestId
  sched::RequestQueue waiting, running;
  std::uint64_t next_order = 0;
  std::uint64_t next_sequence = 1;
  std::uint64_t next_step = 1;

  sched::Draft draft;
  StepId outstanding{};                // the planned step that is not committed; 0: none
  std::vector<sched::Work> in_flight;  // its work
  std::vector<RequestId> forced;       // preempted by force_preempt() since the last plan
  // Scratch of commit(), kept for its memory.
  std::vector<Draw> draws;
  std::vector<std::uint8_t> drawn;
  std::vector<std::uint8_t> failed;  // per work
  std::vector<Fork> forks;
  std::vector<BeamStep> beam_steps;
  SchedulerStats stats;
};

}  // namespace pagedcore
