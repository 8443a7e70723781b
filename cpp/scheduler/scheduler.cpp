// The public face.
#include "pagedcore/scheduler.hpp"

#include "base/text.hpp"
#include "pagedcore/error.hpp"
#include "scheduler/apply.hpp"
#include "scheduler/draft.hpp"
#include "scheduler/intake.hpp"
#include "scheduler/state.hpp"

namespace pagedcore {

// Hidden: else it would be exported with the class around it.
struct PAGEDCORE_HIDDEN Scheduler::Impl {
  Impl(const SchedulerConfig& config, const KvCacheConfig& cache) : state(config, cache) {}

  void plan(StepPlan& plan);
  std::vector<SampleUpdate> commit(const StepResult& result);
  /// The state for a call from outside. Throws Corrupt when it is broken.
  sched::SchedulerState& intact() {
    state.refuse_if_broken();
    return state;
  }

  sched::SchedulerState state;
  sched::Draft draft{state};  // kept for their memory
  sched::Intake intake{state};
};

namespace {

/// Clears a draft when it has been carried out, or something has thrown.
template <class Draft>
class Cleared {
 public:
  explicit Cleared(Draft& draft) : draft_(draft) {}
  ~Cleared() { draft_.clear(); }
  Cleared(const Cleared&) = delete;
  Cleared& operator=(const Cleared&) = delete;

 private:
  Draft& draft_;
};

}  // namespace

/// Decide, gather memory, apply: only the first two may fail, and neither changes anything.
void Scheduler::Impl::plan(StepPlan& plan) {
  intact();
  if (raw(state.flight.step) != 0) {
    throw InvalidArgument(
        str("step ", raw(state.flight.step), " is outstanding; commit() its result before planning again"));
  }
  const Cleared cleared(draft);
  draft.decide();
  draft.draw_up(plan);
  gather_memory(state, draft, plan);
  apply(state, draft, plan);
  intact();
}

std::vector<SampleUpdate> Scheduler::Impl::commit(const StepResult& result) {
  intact();
  const Cleared cleared(intake);
  intake.read(result);
  std::vector<SampleUpdate> updates;
  gather_memory(state, intake, updates);
  apply(state, intake, result, updates);
  intact();
  return updates;
}

Scheduler::Scheduler(const SchedulerConfig& config, const KvCacheConfig& cache)
    : impl_(std::make_unique<Impl>(config, cache)) {}
Scheduler::~Scheduler() = default;
Scheduler::Scheduler(Scheduler&&) noexcept = default;
Scheduler& Scheduler::operator=(Scheduler&&) noexcept = default;

const SchedulerConfig& Scheduler::config() const noexcept { return impl_->state.config; }
const KvCacheManager& Scheduler::cache() const noexcept { return impl_->state.cache; }
void Scheduler::clear_prefix_cache() noexcept { impl_->state.cache.clear_prefix_cache(); }
std::vector<CacheEvent> Scheduler::take_events() { return impl_->intact().cache.take_events(); }

void Scheduler::validate(const SchedulerRequest& request) const { impl_->state.validate(request); }
void Scheduler::submit(SchedulerRequest request) { impl_->intact().submit(std::move(request)); }
void Scheduler::register_prefix(PrefixId id, SchedulerRequest prefix, bool shared) {
  impl_->intact().register_prefix(id, std::move(prefix), shared);
}
void Scheduler::release_prefix(PrefixId id) {
  impl_->intact().release_prefix(id);
  impl_->intact();
}
std::vector<BlockId> Scheduler::import_prefix(std::span<const TokenId> tokens, std::uint64_t salt,
                                              std::span<const std::uint8_t> offered) {
  return impl_->intact().cache.import_prefix(tokens, salt, offered);
}
void Scheduler::end_store_read(RequestId id) {
  sched::Request* request = impl_->intact().find(id);
  if (request != nullptr) request->progress.stored = 0;
}
bool Scheduler::abort(RequestId id) {
  sched::SchedulerState& state = impl_->intact();
  sched::Request* request = state.find(id);
  if (request == nullptr) return false;
  state.carry_out([&] { state.remove(*request); });
  impl_->intact();
  return true;
}
bool Scheduler::force_preempt(RequestId id, PreemptionMode mode) {
  const bool found = impl_->intact().force_preempt(id, mode);
  impl_->intact();
  return found;
}
std::uint32_t Scheduler::extend(RequestId id, std::uint32_t sample, std::span<const TokenId> tokens, bool scored) {
  return impl_->intact().extend(id, sample, tokens, scored);
}

StepPlan Scheduler::plan(double now) {
  StepPlan made;
  plan(now, made);
  return made;
}
void Scheduler::plan(double, StepPlan& plan) { impl_->plan(plan); }
std::vector<SampleUpdate> Scheduler::commit(const StepResult& result) { return impl_->commit(result); }

void Scheduler::set_preemption_costs(const PreemptionCosts& costs) noexcept { impl_->state.costs = costs; }
bool Scheduler::has_work() const noexcept { return !impl_->state.requests.empty(); }
/// Of a broken state the counters: its sequences may be gone.
SchedulerStats Scheduler::stats() const noexcept {
  sched::SchedulerState& state = impl_->state;
  SchedulerStats now = state.stats;
  if (state.broken == nullptr) state.carry_out([&] { now = state.gauges(); });
  return now;
}
void Scheduler::check() const { impl_->intact().check(); }

void Scheduler::draw(const SnapshotLimits& limits, EngineSnapshot& picture) const {
  impl_->intact().draw(limits, picture);
}
bool Scheduler::serves(RequestId id) const noexcept { return impl_->state.find(id) != nullptr; }

std::vector<TokenId> Scheduler::tokens(RequestId id, std::uint32_t sample) const {
  const sched::Request* request = impl_->state.find(id);
  std::vector<TokenId> tokens;
  if (request == nullptr || sample >= request->samples.size()) return tokens;
  request->copy_tokens(request->samples[sample], 0, request->size(request->samples[sample]), tokens);
  return tokens;
}

}  // namespace pagedcore
