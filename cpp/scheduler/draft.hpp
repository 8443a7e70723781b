// The draft of a plan: decisions only, tried on scratch. It sees the state and cannot change it, so that a plan which
// fails half-way, or is not wanted, has changed nothing.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "kv/flat_map.hpp"
#include "scheduler/policy/order.hpp"
#include "scheduler/policy/outlook.hpp"
#include "scheduler/state.hpp"

namespace pagedcore::sched {

struct Admission {
  const Request* request = nullptr;
  std::size_t work = 0;  // index of its work
  KvGroup group{};
  PrefixMatch match{};
  bool from_prefix = false;  // a fork of the pinned one, at the work's first token, instead
};

/// A request that comes back from the swap space.
struct SwapIn {
  const Request* request = nullptr;
  std::vector<SequenceId> sequences;
};

/// One that makes room.
struct Departure {
  enum class Kind : std::uint8_t {
    recompute,
    swap,
    discard,  // waits in the swap space: to be recomputed after all
  };
  Kind kind{};
  const Request* request = nullptr;
  std::vector<SequenceId> sequences{};  // of a swap
};

/// What a plan does.
struct Decisions {
  std::vector<Work> work;
  std::vector<Departure> departures;  // in the order in which they were tried: what one leaves behind changes the next
  std::vector<SwapIn> swap_ins;
  std::vector<Admission> admissions;
  std::vector<const Request*> begin_to_wait;  // for a prefix, for the first time
  std::vector<const Request*> store_reads;    // what these lack of their prefix is asked for
  std::size_t preemptions = 0;                // of the departures: of running requests
  std::uint64_t swap_fallbacks = 0;           // preempted without a slot
};

class Draft {
 public:
  explicit Draft(const SchedulerState& state) : state_(state) {}

  /// Decides what the next step does. May throw std::bad_alloc.
  void decide();
  const Decisions& decisions() const noexcept { return decisions_; }
  bool has_looked_at_waiting() const noexcept { return walk_.has_looked(); }
  /// Empties `plan` but for who is preempted, and makes room in it for what apply() writes.
  void draw_up(StepPlan& plan) const;
  void clear() noexcept;

 private:
  bool is_full() const noexcept { return rows_left_ == 0 || sequences_left_ == 0; }
  bool has_departed(const Request& request) const noexcept {
    return !departed_.empty() && departed_.find(request.key.order) != nullptr;  // mostly the key is not read
  }
  static bool is_ready(const Request& request) noexcept;
  void continue_running(const Request& request);
  void promise(const Request& request, const Sample& sample, std::uint32_t has);
  void add_work(const Request& request, std::uint32_t sample, SequenceId sequence, std::uint32_t first,
                std::uint32_t rows);

  // policy/admission.cpp
  /// A request of which it is tried whether it fits.
  struct Candidate {
    const Request& request;
    bool alone = false;  // nothing else runs: nothing is kept free for others
  };
  bool admit(const Request* next);
  bool resume(const Candidate& candidate);
  bool start(const Candidate& candidate, bool& waits);
  bool fit(const Candidate& candidate, Admission&& admission, std::uint32_t pinned);
  bool has_prefix_underway(const Request& request, const Sample& sample, std::uint32_t has, std::uint32_t most);
  bool waits_for_store(const Candidate& candidate, std::uint32_t has, std::uint32_t most);
  const std::vector<const Request*>& computing();
  std::uint32_t pinned_tokens(const Request& request, std::uint32_t most) const noexcept;
  std::uint32_t most_cached(const Request& request, const Sample& leader) const noexcept;
  // policy/outlook.cpp
  void foresee(Outlook& outlook, const Request& request, std::optional<std::int64_t> saved = {}) const;
  bool is_foreseen_to_fit(const Request& request, std::int64_t saved) const;
  // policy/victim.cpp
  const Request* find_victim(const Request& request) const;
  bool preempt_behind(const Request& request);
  bool preempt_for_waiting(const Request& request, std::uint64_t blocks);
  void preempt(const Request& request);
  bool discard_behind(const Request& request);

  const SchedulerState& state_;
  Decisions decisions_;
  std::optional<KvScratch> scratch_;
  kv::FlatMap<bool> departed_;  // requests, by order of submission
  ServiceWalk walk_;
  std::vector<const Request*> computing_;  // what computing() has found in this plan
  bool has_listed_computing_ = false;
  std::uint32_t rows_left_ = 0;
  std::uint32_t sequences_left_ = 0;
  std::uint64_t promised_ = 0;         // blocks that running requests still need for the tokens they know, and one more
  std::uint64_t running_samples_ = 0;  // unfinished ones of all running requests
  std::uint32_t available_ = 0;        // blocks, before the plan takes any
  Outlook outlook_;                    // of running requests and admitted ones, where the admission looks ahead
  std::uint64_t wanted_ = 0;           // available blocks without which the first who waits is not admitted
  std::uint32_t passed_ = 0;           // requests that wait for a prefix
  bool closed_ = false;                // nobody is admitted any more
};

/// What a tenant is charged when a request of it is admitted with its first `first` tokens computed. Only once:
/// computing them again is no service.
double charge_of(const SchedulerConfig& config, const Request& request, std::uint32_t first) noexcept;

/// What preempting a request costs.
struct PreemptionPrice {
  double blocks = 0.0;     // that it frees
  double per_block = 0.0;  // seconds for each
  bool swaps = false;      // cheaper than recomputing
};
PreemptionPrice price_of(const SchedulerState& state, const Request& request);

}  // namespace pagedcore::sched
