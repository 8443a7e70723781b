// What happens to requests that are there: everything here is bound to succeed while the books are right.
#include "scheduler/state.hpp"

#include <algorithm>
#include <cmath>

#include "base/field_lists.hpp"
#include "base/text.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore {

void validate(const SchedulerConfig& config) {
  check_ranges(config, "scheduler option");
  const auto refuse_unknown = [](const char* what, auto value, auto last) {
    if (value > last) throw InvalidArgument(str(what, " policy ", static_cast<int>(value), " is unknown"));
  };
  refuse_unknown("order", config.order, ServiceOrder::fair);
  refuse_unknown("admission", config.admission, AdmissionPolicy::adaptive);
  refuse_unknown("victim", config.victim, VictimPolicy::last_arrival);
}

namespace sched {
namespace {

SchedulerConfig validated(SchedulerConfig config) {
  validate(config);
  if (config.max_batched_tokens == 0) config.max_batched_tokens = kDefaultBatchedTokens;
  return config;
}

Rules rules_of(const SchedulerConfig& config, const KvCacheConfig& cache, KvTraits traits) {
  const bool never_preempts = config.admission == AdmissionPolicy::never_evict;
  Rules rules;
  rules.block_size = cache.block_size;
  // Where nobody is preempted nobody needs more than was set aside.
  if (!never_preempts) {
    rules.watermark_blocks = static_cast<std::uint32_t>(std::floor(config.watermark * cache.num_blocks));
  }
  rules.windows = cache.windows.empty() ? std::vector<std::uint32_t>{0} : cache.windows;
  rules.num_layer_groups = static_cast<std::uint32_t>(rules.windows.size());
  rules.has_windows = std::ranges::any_of(rules.windows, [](std::uint32_t window) { return window > 0; });
  rules.shares_prefixes = cache.enable_prefix_caching && traits.shares;
  // Where a request gets all that it will need at once, there is nothing to look ahead to, and its going helps nobody.
  rules.looks_ahead = traits.grows && (never_preempts || config.admission == AdmissionPolicy::adaptive);
  rules.preempts_for_waiting = traits.grows && config.order == ServiceOrder::priority && !never_preempts;
  return rules;
}

}  // namespace

SchedulerState::SchedulerState(const SchedulerConfig& config_, const KvCacheConfig& cache_)
    : config(validated(config_)),
      cache_config(cache_),
      // What is left of preempted requests is found through the cache, also when requests share nothing through it.
      cache([&] {
        KvCacheConfig c = cache_;
        c.enable_prefix_caching = true;
        return c;
      }()),
      rules(rules_of(config, cache_, cache.traits())) {}

Request* SchedulerState::find(RequestId id) const noexcept {
  const std::unique_ptr<Request>* found = requests.find(raw(id));
  return found != nullptr ? found->get() : nullptr;
}

std::span<const TokenId> SchedulerState::tokens(const Request& request, const Sample& sample,
                                                std::uint32_t first) const {
  const std::uint32_t prompt = request.limits.prompt_size;
  if (sample.tokens.empty()) return std::span(request.prompt).subspan(first);
  if (first >= prompt) return std::span(sample.tokens).subspan(first - prompt);
  joined.clear();
  request.copy_tokens(sample, first, request.size(sample), joined);
  return joined;
}

/// Computed blocks of a sample enter the prefix cache. With `tail` the partly filled last one too, of one that goes.
void SchedulerState::publish(const Request& request, const Sample& sample, bool tail) {
  if (request.limits.is_whole) return;
  const std::uint32_t known = cache.published(sample.sequence);
  if (sample.computed <= known || (!tail && sample.computed - known < rules.block_size)) return;
  cache.publish(sample.sequence, tokens(request, sample, known), sample.computed, tail, known);
}

void SchedulerState::refuse_if_broken() const {
  if (broken == nullptr) return;
  const auto refuse = [](const char* why) {
    throw Corrupt(str("the scheduler is broken: ", why, "; destroy it and make a new one"));
  };
  try {
    std::rethrow_exception(broken);
  } catch (const std::exception& error) {
    refuse(error.what());
  } catch (...) {
    refuse("an exception of unknown type");
  }
}

/// Forgets a request in any state. Its blocks wait for the step in flight, if that has work of it.
void SchedulerState::remove(Request& request) {
  for (const Sample& sample : request.samples) {
    if (sample.started) cache.free(sample.sequence, request.last_step);
  }
  if (request.last_step == flight.step) {
    for (std::size_t i = request.first_work; i < flight.work.size() && flight.work[i].request == &request; ++i) {
      flight.work[i].request = nullptr;
    }
  }
  if (request.running) {
    running.erase(request);
  } else {
    waiting.erase(request);
  }
  if (request.swapped) swapped.erase(request);
  --request.tenant->requests;
  if (PinnedPrefix* prefix = request.prefix_used) {
    --prefix->users;
    erase_if_unused(*prefix);
  }
  if (PinnedPrefix* prefix = request.prefix_computed) {
    prefix->computing = nullptr;
    if (raw(prefix->sequence) == 0) prefixes.release(*prefix);  // it will never be there
    erase_if_unused(*prefix);
  }
  requests.erase(raw(request.id));
}

/// Forgets a prefix that is released and that nobody uses.
void SchedulerState::erase_if_unused(PinnedPrefix& prefix) {
  if (!prefix.released || prefix.users > 0 || prefix.computing != nullptr) return;
  if (const SequenceId sequence = prefix.sequence; raw(sequence) != 0) {
    prefixes.erase(prefix, cache.block_table(sequence));
    cache.free(sequence, StepId{next.step - 1});  // the last that may read it
  } else {
    prefixes.erase(prefix, {});
  }
}

/// The prefix that a request has computed takes over its sequence.
void SchedulerState::pin(Request& request) {
  Sample& sample = request.samples[0];
  if (rules.shares_prefixes) publish(request, sample, true);
  // What no window reaches any more goes now: the request is not among those that slide when the step is over.
  if (rules.has_windows) cache.slide(sample.sequence, sample.computed, flight.step);
  prefixes.hold(*request.prefix_computed, sample.sequence, cache.block_table(sample.sequence));
  sample.started = false;
  ++request.unstarted;
}

/// From those who wait to those who run. Between tenants the order of service of running requests is that of admission:
/// who was admitted first is preempted last, whatever its tenant was served since.
void SchedulerState::admit(Request& request) {
  waiting.erase(request);
  request.running = true;
  if (config.order == ServiceOrder::fair) request.key.turn = next.turn++;
  running.insert(request);
}

/// And back, to its place.
void SchedulerState::wait_again(Request& request) {
  running.erase(request);
  request.running = request.progress.since_preempted = false;
  request.forced = Forced::none;
  if (config.order == ServiceOrder::fair) request.key.turn = kNoTurn;
  waiting.insert(request);
}

/// Its sequences go; it will be computed from the start, or from what the cache has by then.
void SchedulerState::free_sequences(Request& request) {
  for (Sample& sample : request.samples) {
    if (!sample.started) continue;
    cache.free(sample.sequence, request.last_step);
    sample.started = false;
    sample.computed = 0;
  }
  // As after submission, the leader computes the prompt for all; behind it samples may have more in common.
  if (request.progress.sampled) forks.find(request);
  request.unstarted = request.unfinished;
}

/// A running request is to be recomputed. With `keeps_blocks` its blocks stay in the prefix cache until they are
/// needed.
void SchedulerState::preempt(Request& request, bool keeps_blocks) {
  for (const Sample& sample : request.samples) {
    if (!keeps_blocks || !sample.started || sample.computed == 0) continue;
    publish(request, sample, true);
  }
  free_sequences(request);
  wait_again(request);
  ++stats.preemptions_recompute;
}

/// A running request whose sequences were moved to the swap space.
void SchedulerState::swap_out(Request& request) {
  request.swapped = true;
  wait_again(request);
  swapped.insert(request);
  ++stats.preemptions_swap;
}

void SchedulerState::swap_in(Request& request) {
  swapped.erase(request);
  request.swapped = false;
  admit(request);
}

/// One that waits in the swap space is to be recomputed after all.
void SchedulerState::discard_swapped(Request& request) {
  free_sequences(request);
  swapped.erase(request);
  request.swapped = false;
  ++stats.swap_fallbacks;
}

void SchedulerState::finish_sample(Request& request, std::uint32_t index, FinishReason reason) {
  Sample& sample = request.samples[index];
  sample.finish = reason;
  --request.unfinished;
  if (sample.started) {
    // The end of a beam is of no use to others.
    if (rules.shares_prefixes && !request.is_beam_search()) publish(request, sample, true);
    cache.free(sample.sequence, request.last_step);
    sample.started = false;
  } else {
    --request.unstarted;
  }
}

SchedulerStats SchedulerState::gauges() const {
  SchedulerStats now = stats;
  now.waiting = waiting.size();
  now.running = running.size();
  now.swapped = swapped.size();
  now.prefixes = static_cast<std::uint32_t>(prefixes.all().size());
  now.blocks_pinned = prefixes.blocks_held();
  for (const Request* request = running.front(); request != nullptr; request = request->place.next) {
    for (const Sample& sample : request->samples) {
      if (sample.is_finished()) continue;
      const std::uint32_t length = sample.started ? cache.length(sample.sequence) : 0;
      now.tokens_cached += length;
      now.slots_unused += (cache.blocks_for(length) * std::uint64_t{rules.block_size}) - length;
      const KvSetAside aside = cache.set_aside(request->limits.prompt_size, request->limits.max_tokens, length);
      now.slots_reserved += aside.needed;
      now.slots_overreserved += aside.unneeded;
    }
  }
  return now;
}

}  // namespace sched
}  // namespace pagedcore
