// The state behind Scheduler, and the draft of a plan.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "kv/buddy_allocator.hpp"
#include "kv/flat_map.hpp"
#include "pagedcore/scheduler.hpp"
#include "scheduler/outlook.hpp"
#include "scheduler/output_lengths.hpp"
#include "scheduler/request.hpp"
#include "scheduler/waiting.hpp"

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
  std::size_t work = 0;        // index of its work
  std::uint32_t reserved = 0;  // contiguous: tokens of each sequence of its group
  PrefixMatch match{};
  bool from_prefix = false;  // a fork of the pinned one, at the work's first token, instead
};

/// A request that comes back from the swap space.
struct Swap {
  Request* request = nullptr;
  std::vector<SequenceId> sequences;
};

/// One that makes room.
struct Departure {
  enum class Kind : std::uint8_t {
    recompute,
    swap,
    give_up,  // waits in the swap space: to be recomputed after all
  };
  Kind kind{};
  Request* request = nullptr;
  std::vector<SequenceId> sequences{};  // of a swap
};

/// A plan in the making: decisions only, tried on scratch; nothing else has changed yet.
struct Draft {
  std::optional<KvScratch> scratch;
  std::vector<Work> work;
  std::vector<Departure> departures;  // in the order in which they were tried: what one leaves behind changes the next
  std::size_t victims = 0;            // of them that were running
  std::vector<Swap> swap_ins;
  std::vector<Admission> admissions;
  std::uint32_t rows_left = 0;
  std::uint32_t sequences_left = 0;
  std::uint64_t promised = 0;         // blocks that running requests still need for the tokens they know, and one more
  std::uint64_t running_samples = 0;  // unfinished ones of all running requests
  std::uint32_t available = 0;        // blocks, before the plan takes any
  Outlook outlook;                    // of running requests and admitted ones, where the admission looks ahead
  std::uint64_t wanted = 0;           // available blocks without which the first who waits does not come in
  std::uint32_t passed = 0;           // requests that wait for a prefix
  bool closed = false;                // nobody comes in any more

  bool is_full() const noexcept { return rows_left == 0 || sequences_left == 0; }
  void clear() noexcept {
    for (const Departure& departure : departures) departure.request->evicted = false;
    scratch.reset();
    work.clear();
    departures.clear();
    victims = 0;
    swap_ins.clear();
    admissions.clear();
  }
};

}  // namespace pagedcore::sched

namespace pagedcore {

// Hidden: else it would be exported with the class around it.
struct PAGEDCORE_HIDDEN Scheduler::Impl {
  Impl(const SchedulerConfig& config, const KvCacheConfig& cache);

  // submission.cpp
  void validate(const SchedulerRequest& request) const;
  void validate_reservation(const SchedulerRequest& request) const;
  struct Need {
    std::uint64_t shared = 0, own = 0, sequences = 0, total = 0;
  };
  Need blocks_needed(const SchedulerRequest& request) const noexcept;
  // admission.cpp
  bool admit(const sched::Request* next);
  bool resume(sched::Request& request, bool alone);
  bool start(sched::Request& request, bool alone, bool& waits);
  bool is_being_computed(const sched::Request& request, const std::vector<TokenId>& tokens, std::uint32_t has,
                         std::uint32_t most) const noexcept;
  double charge(const sched::Request& request, std::uint32_t first) const noexcept;
  std::uint64_t blocks_promised(const sched::Request& request, const sched::Sample& sample, std::uint32_t has) const;
  std::uint64_t blocks_after_start(const sched::Request& request, std::uint32_t leader, std::uint32_t has) const;
  std::uint32_t shared_tokens(const sched::Request& request) const noexcept;
  // outlook.cpp
  bool looks_ahead() const noexcept {
    return config.admission == AdmissionPolicy::never_evict || config.admission == AdmissionPolicy::adaptive;
  }
  void foresee(sched::Outlook& outlook, const sched::Request& request, std::optional<std::int64_t> saved = {}) const;
  bool is_foreseen_to_fit(const sched::Request& request, std::int64_t saved) const;
  std::int64_t blocks_held(const sched::Request& request) const noexcept;
  std::int64_t blocks_saved(const PrefixMatch& match) const noexcept;
  // victim.cpp
  sched::Request* find_victim(const sched::Request& request) const noexcept;
  bool make_room(sched::Request& request);
  bool make_way(const sched::Request& request, std::uint64_t blocks);
  void evict(sched::Request& request);
  bool give_up_later(const sched::Request& request);
  struct Price {
    double blocks = 0.0;     // that it frees
    double per_block = 0.0;  // seconds for each
    bool swaps = false;      // cheaper than recomputing
  };
  Price price(const sched::Request& request) const noexcept;
  void let_go(sched::Request& request) noexcept;
  void preempt(sched::Request& request, bool keep = true) noexcept;
  void give_up(sched::Request& request) noexcept;
  // prefixes.cpp
  void register_prefix(PrefixId id, SchedulerRequest spec);
  void release_prefix(PrefixId id);
  sched::PinnedPrefix* find_prefix(PrefixId id) const noexcept;
  void settle(sched::PinnedPrefix& prefix) noexcept;
  sched::Request& enqueue(SchedulerRequest spec);
  // plan.cpp
  StepPlan plan();
  void decide();
  void continue_running(sched::Request& request);
  static bool is_ready(const sched::Request& request) noexcept;
  void add_work(sched::Request& request, std::uint32_t sample, SequenceId sequence, std::uint32_t first,
                std::uint32_t rows);
  StepPlan draw_up() const;
  void prepare_cache(StepPlan& plan);
  void apply(StepPlan& plan);
  void swap_out(const sched::Departure& swap, StepPlan& plan);
  void swap_in(const sched::Swap& swap, StepPlan& plan);
  // commit.cpp
  struct Draw {
    TokenId token = -1;
    bool stop = false;
  };
  struct Fork {
    sched::Request* request = nullptr;
    std::uint32_t sample = 0;
    SequenceId sequence{};
    std::uint32_t length = 0;
    bool is_beam = false;  // of a search that goes on, not of a group that starts
  };
  std::vector<SampleUpdate> commit(const StepResult& result);
  void recover(RequestId id) noexcept;
  void collect(const StepResult& result);
  void prepare_samples(std::vector<SampleUpdate>& updates);
  void prepare_forks(const sched::Work& work);
  PrefixMatch left_over(const sched::Request& request, std::uint32_t sample, SequenceId parent) const;
  void fork(sched::Request& request, std::uint32_t sample, SequenceId parent, std::uint32_t length, bool is_beam,
            const PrefixMatch* match = nullptr);
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
  void start_running(sched::Request& request) noexcept;
  void stop_running(sched::Request& request) noexcept;
  template <class Call>
  void each_request(const Call& call) const {
    waiting.each(call);
    for (sched::Request* request = running.front(); request != nullptr; request = request->next) call(*request);
  }
  sched::Request* find(RequestId id) const noexcept;
  void check() const;

  SchedulerConfig config;
  KvCacheConfig cache_config;
  KvCacheManager cache;
  std::uint32_t watermark_blocks = 0;

  kv::FlatMap<std::unique_ptr<sched::Request>> requests;       // by RequestId
  std::vector<std::unique_ptr<sched::PinnedPrefix>> prefixes;  // few; released ones as long as they are in use
  std::uint64_t pinned_blocks = 0;                             // of all prefixes
  std::vector<std::uint32_t> windows;                          // of each group of layers
  bool has_windows = false;
  bool paged = true;                    // else contiguous: admission reserves all, nothing is shared or preempted
  kv::BuddyAllocator::Counts chunks{};  // of an empty contiguous cache
  bool caching = true;                  // prefixes are shared between requests
  PreemptionCosts costs;
  sched::WaitingRoom waiting;
  sched::RequestQueue running;
  sched::OutputLengths output_lengths;  // where the admission is adaptive
  bool preempts_for_waiting = false;    // of higher priorities
  std::uint64_t last_turn = 0;
  std::uint32_t num_swapped = 0;  // of the waiting: in the swap space
  std::uint64_t next_order = 0;
  std::uint64_t next_sequence = 1;
  std::uint64_t next_step = 1;

  sched::Draft draft;
  StepId outstanding{};                // the planned step that is not committed; 0: none
  std::vector<sched::Work> in_flight;  // its work
  std::vector<RequestId> moving;       // and those that it swaps out or in
  std::vector<RequestId> forced;       // preempted by force_preempt() since the last plan
  bool swaps_forced = false;           // some request has swap_next
  // Scratch of commit(), kept for its memory.
  std::vector<Draw> draws;
  std::vector<std::uint8_t> drawn;
  std::vector<std::uint8_t> failed;  // per work
  std::vector<Fork> forks;
  std::vector<BeamStep> beam_steps;
  SchedulerStats stats;
};

}  // namespace pagedcore
