// The public face: construction, submission, aborts and what can be asked.
#include "pagedcore/scheduler.hpp"

#include <algorithm>
#include <cmath>

#include "base/text.hpp"
#include "pagedcore/error.hpp"
#include "scheduler/state.hpp"

namespace pagedcore {

using sched::Request;
using sched::Sample;

namespace {

const SchedulerConfig& validated(const SchedulerConfig& config) {
  if (config.max_batched_tokens == 0)
    throw InvalidArgument("max_batched_tokens is 0; a step computes one row at least");
  if (config.max_sequences == 0) throw InvalidArgument("max_sequences is 0; a step schedules one sequence at least");
  if (!(config.watermark >= 0.0 && config.watermark <= 1.0)) {
    throw InvalidArgument(str("watermark is ", config.watermark, "; it is a share of the blocks, in [0, 1]"));
  }
  const auto refuse_unknown = [](const char* what, auto value, auto last) {
    if (value > last) throw InvalidArgument(str(what, " policy ", static_cast<int>(value), " is unknown"));
  };
  refuse_unknown("order", config.order, ServiceOrder::fair);
  refuse_unknown("admission", config.admission, AdmissionPolicy::adaptive);
  refuse_unknown("victim", config.victim, VictimPolicy::last_arrival);
  for (const double weight : {config.prompt_weight, config.output_weight}) {
    if (!(weight >= 0.0 && std::isfinite(weight))) {
      throw InvalidArgument(str("a weight of ", weight, " for tokens of tenants; weights are finite, 0 or more"));
    }
  }
  return config;
}

}  // namespace

Scheduler::Impl::Impl(const SchedulerConfig& config_, const KvCacheConfig& cache_)
    : config(validated(config_)),
      cache_config(cache_),
      // What is left of preempted requests is found through the cache, also when requests share nothing through it.
      cache([&] {
        KvCacheConfig c = cache_;
        c.enable_prefix_caching = true;
        return c;
      }()),
      watermark_blocks(static_cast<std::uint32_t>(std::floor(config.watermark * cache_.num_blocks))),
      windows(cache_.windows.empty() ? std::vector<std::uint32_t>{0} : cache_.windows),
      has_windows(std::ranges::any_of(cache_.windows, [](std::uint32_t window) { return window > 0; })),
      paged(cache_.allocation == AllocationPolicy::paged),
      caching(cache_.enable_prefix_caching && paged),
      preempts_for_waiting(config.order == ServiceOrder::priority && paged &&
                           config.admission != AdmissionPolicy::never_evict) {
  if (config.admission == AdmissionPolicy::never_evict) watermark_blocks = 0;  // nobody needs more than was set aside
  if (paged) return;
  const std::uint32_t order = kv::BuddyAllocator::order_of(cache.blocks_for(cache_config.max_reservation));
  chunks = kv::BuddyAllocator(cache_config.num_blocks, order).counts();
}

Request* Scheduler::Impl::find(RequestId id) const noexcept {
  const std::unique_ptr<Request>* found = requests.find(raw(id));
  return found != nullptr ? found->get() : nullptr;
}

/// Forgets a request in any state. Its blocks wait for the step in flight, if that has work of it.
void Scheduler::Impl::remove(Request& request) noexcept {
  for (const Sample& sample : request.samples) {
    if (sample.started) cache.free(sample.sequence, request.last_step);
  }
  for (sched::Work& work : in_flight) {
    if (work.request == &request) work.request = nullptr;
  }
  if (request.running) {
    running.erase(request);
  } else {
    waiting.erase(request);
  }
  --request.tenant->requests;
  num_swapped -= request.swapped;
  if (sched::PinnedPrefix* prefix = request.prefix) {
    --prefix->users;
    settle(*prefix);
  }
  if (sched::PinnedPrefix* pinned = request.pins) {
    pinned->computing = nullptr;
    pinned->released = pinned->released || raw(pinned->sequence) == 0;  // it will never be there
    settle(*pinned);
  }
  requests.erase(raw(request.id));
}

/// From those who wait to those who run. Between tenants the order of service of running requests is that of coming in:
/// who came in first is preempted last, whatever its tenant was served since.
void Scheduler::Impl::start_running(Request& request) noexcept {
  waiting.erase(request);
  request.running = true;
  if (config.order == ServiceOrder::fair) request.turn = ++last_turn;
  running.insert(request);
}

/// And back.
void Scheduler::Impl::stop_running(Request& request) noexcept {
  running.erase(request);
  request.running = request.preempt_after_commit = request.swap_next = request.progressed = false;
  if (config.order == ServiceOrder::fair) request.turn = sched::kNoTurn;
  waiting.put_back(request);
}

Scheduler::Scheduler(const SchedulerConfig& config, const KvCacheConfig& cache)
    : impl_(std::make_unique<Impl>(config, cache)) {}
Scheduler::~Scheduler() = default;
Scheduler::Scheduler(Scheduler&&) noexcept = default;
Scheduler& Scheduler::operator=(Scheduler&&) noexcept = default;

const SchedulerConfig& Scheduler::config() const noexcept { return impl_->config; }
const KvCacheManager& Scheduler::cache() const noexcept { return impl_->cache; }
KvCacheManager& Scheduler::cache() noexcept { return impl_->cache; }
void Scheduler::validate(const SchedulerRequest& request) const { impl_->validate(request); }
StepPlan Scheduler::plan(double) { return impl_->plan(); }
std::vector<SampleUpdate> Scheduler::commit(const StepResult& result) { return impl_->commit(result); }
bool Scheduler::has_work() const noexcept { return !impl_->requests.empty(); }
void Scheduler::check() const { impl_->check(); }

void Scheduler::register_prefix(PrefixId id, SchedulerRequest prefix) { impl_->register_prefix(id, std::move(prefix)); }
void Scheduler::release_prefix(PrefixId id) { impl_->release_prefix(id); }
void Scheduler::set_preemption_costs(const PreemptionCosts& costs) noexcept { impl_->costs = costs; }

void Scheduler::submit(SchedulerRequest spec) {
  impl_->validate(spec);
  const auto refuse = [&](const std::string& why) { throw InvalidArgument(str("request ", raw(spec.id), ": ", why)); };
  std::uint64_t needs = impl_->blocks_needed(spec).total;
  sched::PinnedPrefix* prefix = nullptr;
  if (raw(spec.prefix) != 0) {
    prefix = impl_->find_prefix(spec.prefix);
    if (prefix == nullptr) {
      refuse(str("prefix ", raw(spec.prefix), " is unknown; register_prefix() it, or name none"));
    }
    const auto common = std::ranges::mismatch(prefix->tokens, spec.prompt).in1 - prefix->tokens.begin();
    if (common < std::ssize(prefix->tokens)) {
      refuse(str("the prompt leaves prefix ", raw(spec.prefix), " at token ", common, " of ", prefix->tokens.size(),
                 "; it must begin with all of them"));
    }
    // What it shares with the prefix is counted there. It computes its last token and, for their logprobs, all of them.
    if (!impl_->has_windows && !spec.prompt_logprobs) {
      needs -= std::min(prefix->tokens.size(), spec.prompt.size() - 1) / impl_->cache_config.block_size *
               impl_->windows.size();
    }
  }
  if (impl_->paged && needs + impl_->pinned_blocks > impl_->cache_config.num_blocks) {
    refuse(str("it may need ", needs, " KV blocks of its own, but registered prefixes keep ", impl_->pinned_blocks,
               " of ", impl_->cache_config.num_blocks, "; release one, lower max_tokens or enlarge the cache"));
  }
  Request& request = impl_->enqueue(std::move(spec));
  request.needs = needs;
  request.prefix = prefix;
  if (prefix != nullptr) ++prefix->users;
}

/// A new request in the waiting queue. It has passed every check but that of its id.
Request& Scheduler::Impl::enqueue(SchedulerRequest spec) {
  if (find(spec.id) != nullptr) {
    throw InvalidArgument(
        str("request ", raw(spec.id), " is still being served; choose another id or abort() it first"));
  }
  auto request = std::make_unique<Request>();
  request->tenant = &waiting.tenant(config.order == ServiceOrder::fair ? spec.tenant : 0);
  request->turn = config.order == ServiceOrder::fair ? sched::kNoTurn : 0;
  request->priority = config.order == ServiceOrder::priority ? spec.priority : 0;
  request->most_blocks = blocks_needed(spec).total;
  request->id = spec.id;
  request->arrival = spec.arrival;
  request->order = next_order;
  request->prompt_size = static_cast<std::uint32_t>(spec.prompt.size());
  request->max_tokens = spec.max_tokens;
  // Without caching every request is a tenant of its own.
  request->salt = caching ? spec.salt : request->order;
  request->beam_width = spec.beam_width;
  request->samples.resize(std::max(spec.num_samples, spec.beam_width));
  for (Sample& sample : request->samples) sample.fork_length = request->prompt_size;
  for (std::uint32_t k = 1; k < spec.beam_width; ++k)
    request->samples[k].finish = FinishReason::stop;  // not in use yet
  request->samples[0].tokens = std::move(spec.prompt);
  request->unfinished = request->unstarted = spec.num_samples;
  request->scores = spec.prompt_logprobs;
  Request& added = *request;
  requests[raw(spec.id)] = std::move(request);
  ++added.tenant->requests;
  waiting.insert(added);
  ++next_order;
  return added;
}

bool Scheduler::abort(RequestId id) {
  Request* request = impl_->find(id);
  if (request == nullptr) return false;
  impl_->remove(*request);
  return true;
}

bool Scheduler::force_preempt(RequestId id, PreemptionMode mode) {
  Request* request = impl_->find(id);
  if (request == nullptr || !request->running) return false;
  if (mode != PreemptionMode::recompute) {
    request->swap_next = impl_->swaps_forced = true;
    return true;
  }
  impl_->forced.reserve(impl_->forced.size() + impl_->running.size());  // so that commit() need not allocate
  if (raw(impl_->outstanding) == 0) {
    impl_->forced.push_back(id);
    impl_->preempt(*request);
  } else {
    request->preempt_after_commit = true;
  }
  return true;
}

SchedulerStats Scheduler::stats() const noexcept {
  SchedulerStats stats = impl_->stats;
  stats.waiting = impl_->waiting.size();
  stats.running = impl_->running.size();
  stats.swapped = impl_->num_swapped;
  stats.prefixes = static_cast<std::uint32_t>(impl_->prefixes.size());
  for (const auto& prefix : impl_->prefixes) {
    if (raw(prefix->sequence) == 0) continue;
    const auto table = impl_->cache.block_table(prefix->sequence);
    for (std::size_t i = 0; i < table.size(); ++i) {
      // One that prefixes share is at the same place in all of them, and counted with the first.
      const bool is_counted = std::ranges::any_of(impl_->prefixes, [&](const auto& other) {
        if (other.get() >= prefix.get() || raw(other->sequence) == 0) return false;
        const auto others = impl_->cache.block_table(other->sequence);
        return i < others.size() && others[i] == table[i];
      });
      stats.blocks_pinned += table[i] != kNoBlock && !is_counted;
    }
  }
  for (const Request* request = impl_->running.front(); request != nullptr; request = request->next) {
    for (const Sample& sample : request->samples) {
      if (!sample.started) continue;
      const std::uint32_t length = impl_->cache.length(sample.sequence);
      stats.tokens_cached += length;
      stats.slots_unused += (impl_->cache.blocks_for(length) * std::uint64_t{impl_->cache_config.block_size}) - length;
    }
    if (impl_->paged) continue;
    const std::uint32_t reserved = impl_->cache.reservation(request->prompt_size, request->max_tokens);
    for (const Sample& sample : request->samples) {
      if (sample.is_finished()) continue;
      const std::uint32_t will_be = request->prompt_size + request->max_tokens;
      stats.slots_reserved += will_be - (sample.started ? impl_->cache.length(sample.sequence) : 0);
      stats.slots_overreserved += reserved - will_be;
    }
  }
  return stats;
}

std::span<const TokenId> Scheduler::tokens(RequestId id, std::uint32_t sample) const noexcept {
  const Request* request = impl_->find(id);
  if (request == nullptr || sample >= request->samples.size()) return {};
  const std::vector<TokenId>& tokens = request->samples[sample].tokens;
  return tokens.empty() ? request->samples[0].tokens : tokens;
}

}  // namespace pagedcore
