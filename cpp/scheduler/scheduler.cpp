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
  return config;
}

}  // namespace

Scheduler::Impl::Impl(const SchedulerConfig& config_, const KvCacheConfig& cache_)
    : config(validated(config_)),
      cache_config(cache_),
      cache(cache_),
      watermark_blocks(static_cast<std::uint32_t>(std::floor(config.watermark * cache_.num_blocks))) {}

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
  (request.running ? running : waiting).erase(request);
  requests.erase(raw(request.id));
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

void Scheduler::submit(SchedulerRequest spec) {
  impl_->validate(spec);
  if (impl_->find(spec.id) != nullptr) {
    throw InvalidArgument(
        str("request ", raw(spec.id), " is still being served; choose another id or abort() it first"));
  }
  auto request = std::make_unique<Request>();
  request->id = spec.id;
  request->arrival = spec.arrival;
  request->order = impl_->next_order;
  request->prompt_size = static_cast<std::uint32_t>(spec.prompt.size());
  request->max_tokens = spec.max_tokens;
  request->salt = spec.salt;
  request->beam_width = spec.beam_width;
  request->samples.resize(std::max(spec.num_samples, spec.beam_width));
  for (Sample& sample : request->samples) sample.fork_length = request->prompt_size;
  for (std::uint32_t k = 1; k < spec.beam_width; ++k)
    request->samples[k].finish = FinishReason::stop;  // not in use yet
  request->samples[0].tokens = std::move(spec.prompt);
  request->unfinished = request->unstarted = spec.num_samples;
  request->scores = spec.prompt_logprobs;
  Request& added = *request;
  impl_->requests[raw(spec.id)] = std::move(request);
  impl_->waiting.insert(added);
  ++impl_->next_order;
}

bool Scheduler::abort(RequestId id) {
  Request* request = impl_->find(id);
  if (request == nullptr) return false;
  impl_->remove(*request);
  return true;
}

bool Scheduler::force_preempt(RequestId id) {
  Request* request = impl_->find(id);
  if (request == nullptr || !request->running) return false;
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
  return stats;
}

std::span<const TokenId> Scheduler::tokens(RequestId id, std::uint32_t sample) const noexcept {
  const Request* request = impl_->find(id);
  if (request == nullptr || sample >= request->samples.size()) return {};
  const std::vector<TokenId>& tokens = request->samples[sample].tokens;
  return tokens.empty() ? request->samples[0].tokens : tokens;
}

}  // namespace pagedcore
