// The state of a scheduler: its queues, requests, registered prefixes and cache, and what keeps them in order. What a
// method that is not const does cannot fail, but for those that say so: a draft (draft.hpp, intake.hpp) has made sure.
// Should it fail all the same the books were wrong before, and carry_out() breaks the state.
#pragma once

#include <cstdint>
#include <exception>
#include <memory>
#include <span>
#include <vector>

#include "kv/flat_map.hpp"
#include "pagedcore/scheduler.hpp"
#include "scheduler/fork_finder.hpp"
#include "scheduler/policy/output_lengths.hpp"
#include "scheduler/prefixes.hpp"
#include "scheduler/request.hpp"
#include "scheduler/waiting.hpp"

namespace pagedcore::sched {

/// What follows from the configurations.
struct Rules {
  std::uint32_t block_size = 0;
  std::uint32_t num_layer_groups = 1;
  std::uint32_t watermark_blocks = 0;  // that an admission leaves free
  std::vector<std::uint32_t> windows;  // [num_layer_groups]
  bool has_windows = false;
  bool shares_prefixes = true;        // between requests
  bool looks_ahead = false;           // admission asks what running requests may come to hold
  bool preempts_for_waiting = false;  // of higher priorities
};

/// What one sequence does in a step: compute [first, first + rows), then sample the last row for
/// [sample, sample + num_samples).
struct Work {
  const Request* request = nullptr;  // null once the request is gone
  std::uint32_t sample = 0;
  SequenceId sequence{};
  std::uint32_t first = 0;
  std::uint32_t rows = 0;
  std::uint32_t num_samples = 0;
  std::uint32_t first_draw = 0;  // in the list of the step's drawn tokens
  bool is_beam = false;
  bool is_plain = false;  // one token is drawn, has room, and nothing forks: until it is taken in nobody looks at it

  std::uint32_t end() const noexcept { return first + rows; }
};

/// Asks for the memory of what every step reads of a request.
inline void prefetch(const Request* request) noexcept {
  if (request == nullptr) return;
  __builtin_prefetch(request);
  __builtin_prefetch(&request->id);  // the second cache line
}

/// While a pass works on work[i] it asks for the memory of those behind it: the requests of a step lie all over memory,
/// and with thousands of sequences each pass would wait for every one of them.
inline void look_ahead(const std::vector<Work>& work, std::size_t i) noexcept {
  if (i + 24 >= work.size()) return;
  prefetch(work[i + 24].request);
  if (const Work& next = work[i + 16]; next.request != nullptr) {
    __builtin_prefetch(next.request->samples.data() + next.sample);
  }
  if (const Work& next = work[i + 8]; next.request != nullptr) {
    __builtin_prefetch(next.request->place_of(next.request->samples[next.sample], next.first));
  }
}

/// The planned step that is not committed.
struct Flight {
  StepId step{};                  // 0: none
  std::vector<Work> work;         // that of one request lies together
  std::vector<RequestId> moving;  // requests that it swaps out or in
};

/// What the next one of each kind gets.
struct NextIds {
  std::uint64_t order = 0;  // of submission
  std::uint64_t turn = 1;
  std::uint64_t sequence = 1;
  std::uint64_t step = 1;
};

struct SchedulerState {
  SchedulerState(const SchedulerConfig& config, const KvCacheConfig& cache);

  // Questions.
  Request* find(RequestId id) const noexcept;
  /// A draft names requests that it may not change. They are the state's, so whoever may change that may change them.
  Request& own(const Request& request) noexcept { return const_cast<Request&>(request); }
  template <class Call>
  void each_request(const Call& call) const {
    waiting.each(call);
    for (Request* request = running.front(); request != nullptr; request = request->place.next) call(*request);
  }
  SchedulerStats gauges() const;
  void draw(const SnapshotLimits& limits, EngineSnapshot& picture) const;
  /// The tokens of a sample from `first` on, in one piece until the next call. Needs no memory for a sample whose
  /// tokens were drawn by commit(), which has made room.
  std::span<const TokenId> tokens(const Request& request, const Sample& sample, std::uint32_t first = 0) const;
  void check() const;

  // Blocks (blocks.cpp).
  struct Need {
    std::uint64_t shared = 0, own = 0, sequences = 0, total = 0;
  };
  Need blocks_needed(std::uint64_t prompt, std::uint32_t max_tokens, std::uint64_t sequences) const noexcept;
  Need blocks_needed(const SchedulerRequest& request) const noexcept;
  std::uint64_t blocks_of_its_own(const Request& request, std::uint32_t max_tokens) const noexcept;
  void fit_into(Request& request, std::uint64_t blocks) noexcept;
  std::uint64_t blocks_promised(const Request& request, const Sample& sample, std::uint32_t has) const;
  std::uint64_t blocks_after_start(const Request& request, std::uint32_t leader, std::uint32_t has) const;
  std::uint32_t shared_tokens(const Request& request) const noexcept;
  std::int64_t blocks_held(const Request& request) const;
  std::int64_t blocks_saved(const PrefixMatch& match) const;

  // Submission (submission.cpp). These throw, and then nothing has changed.
  void validate(const SchedulerRequest& request) const;
  void submit(SchedulerRequest spec);
  void register_prefix(PrefixId id, SchedulerRequest spec, bool shared);
  void release_prefix(PrefixId id);
  bool force_preempt(RequestId id, PreemptionMode mode);
  std::uint32_t extend(RequestId id, std::uint32_t sample, std::span<const TokenId> tokens, bool scored);

  /// Makes a change that cannot fail. When something is thrown all the same, half a change is done and the books are
  /// wrong: the state is broken from then on, and the process lives.
  template <class Change>
  void carry_out(const Change& change) noexcept {
    try {
      change();
    } catch (...) {
      broken = std::current_exception();
    }
  }
  /// Throws Corrupt with the reason when the state is broken.
  void refuse_if_broken() const;

  // Changes (state.cpp).
  void remove(Request& request);
  void admit(Request& request);
  void preempt(Request& request, bool keeps_blocks = true);
  void swap_out(Request& request);
  void swap_in(Request& request);
  void discard_swapped(Request& request);
  void finish_sample(Request& request, std::uint32_t sample, FinishReason reason);
  void publish(const Request& request, const Sample& sample, bool tail);
  void pin(Request& request);

  SchedulerConfig config;
  KvCacheConfig cache_config;
  KvCacheManager cache;
  Rules rules;
  PreemptionCosts costs;

  kv::FlatMap<std::unique_ptr<Request>> requests;  // by RequestId
  Prefixes prefixes;
  WaitingRoom waiting;
  RequestQueue running;
  SwappedQueue swapped;          // of the waiting: in the swap space
  OutputLengths output_lengths;  // where the admission is adaptive
  ForkFinder forks;
  NextIds next;
  Flight flight;
  std::vector<RequestId> preempted;     // by force_preempt() since the last plan
  mutable std::vector<TokenId> joined;  // scratch of tokens()
  bool swaps_forced = false;            // some request is swapped out by the next plan
  bool preempts_after_commit = false;
  SchedulerStats stats;       // the counters
  std::exception_ptr broken;  // by which carry_out() broke it

 private:
  Request& enqueue(SchedulerRequest spec);
  void validate_beams(const SchedulerRequest& request) const;
  void validate_whole(const SchedulerRequest& request) const;
  void free_sequences(Request& request);
  void wait_again(Request& request);
  void erase_if_unused(PinnedPrefix& prefix);
};

}  // namespace pagedcore::sched
