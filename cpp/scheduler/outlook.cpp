// What requests may take, or are expected to take: for admissions that look ahead.
#include <algorithm>

#include "scheduler/state.hpp"

namespace pagedcore {

using sched::Outlook;
using sched::Request;
using sched::Sample;

/// Blocks of all sequences of a request, one that several share once. One that strangers share counts for less than
/// one: never too many.
std::int64_t Scheduler::Impl::blocks_held(const Request& request) const noexcept {
  if (request.samples.size() == 1) return std::ssize(cache.block_table(request.samples[0].sequence));
  double blocks = 0.0;
  for (const Sample& sample : request.samples) {
    if (!sample.started) continue;
    for (const BlockId block : cache.block_table(sample.sequence)) blocks += 1.0 / cache.references(block);
  }
  return static_cast<std::int64_t>(blocks + 1e-6);
}

/// Blocks that one which comes in with this match need not take, since others hold them. A match inside a block takes
/// one more until that is copied.
std::int64_t Scheduler::Impl::blocks_saved(const PrefixMatch& match) const noexcept {
  std::int64_t saved = 0;
  for (const BlockId block : match.blocks) saved += block != kNoBlock && cache.references(block) > 0;
  return match.num_tokens % cache_config.block_size > 0 ? saved - cache.num_groups() : saved;
}

/// Adds what a request will take beyond what it holds at the beginning of the plan; of one that would come in, with so
/// many blocks saved.
void Scheduler::Impl::foresee(Outlook& outlook, const Request& request, std::optional<std::int64_t> saved) const {
  if (config.admission == AdmissionPolicy::never_evict) {
    const auto most = static_cast<std::int64_t>(request.most_blocks);
    // With windows a request lets go of blocks that others hold too, which frees nothing: so nothing counts as held.
    const std::int64_t held = has_windows ? 0 : saved ? *saved : blocks_held(request);
    outlook.add(static_cast<double>(std::max<std::int64_t>(0, most - held)));
    return;
  }
  const std::uint32_t leader = request.leader();
  const std::int64_t found_blocks = saved ? std::max<std::int64_t>(0, *saved) / cache.num_groups() : 0;
  const auto found = static_cast<std::uint32_t>(found_blocks * cache_config.block_size);
  const std::uint32_t common = std::min(shared_tokens(request), request.samples[leader].computed);
  const auto add = [&](const Sample& sample, std::uint32_t has, double own) {
    const std::uint32_t size = request.size(sample);
    const std::uint64_t left = std::uint64_t{request.prompt_size} + request.max_tokens - size;
    const std::uint64_t held = cache.footprint(has);
    const bool only_computes = request.max_tokens == 0;
    outlook.add(
        only_computes ? std::uint64_t{1} << 32 : left, own,
        [&](std::uint32_t tokens) {
          const bool is_certain = only_computes || request.is_beam_search();
          return is_certain ? 1.0 : output_lengths.chance(size - request.prompt_size, tokens);
        },
        [&](std::uint32_t tokens) {
          const std::uint64_t length = std::min(std::uint64_t{size} + tokens, std::uint64_t{request.max_length()});
          const std::uint64_t blocks = cache.footprint(length);
          return static_cast<double>(blocks - std::min(blocks, held));
        });
  };
  for (std::uint32_t i = 0; i < request.samples.size(); ++i) {
    const Sample& sample = request.samples[i];
    if (sample.is_finished()) continue;
    if (saved || !sample.started) {
      add(sample, i == leader ? found : shared_tokens(request), 0.0);
      continue;
    }
    // What its end sets free: not what it found in the cache, nor what the group shares.
    const bool is_one = request.samples.size() == 1;
    const std::uint32_t kept = is_one ? std::min(request.found, sample.computed) : common;
    const std::uint64_t blocks = cache.footprint(sample.computed) - cache.footprint(kept);
    add(sample, sample.computed, request.pins != nullptr ? 0.0 : static_cast<double>(blocks));
  }
  if (request.is_beam_search() && !request.sampled) {
    for (std::uint32_t k = 1; k < request.beam_width; ++k) add(request.samples[leader], shared_tokens(request), 0.0);
  }
}

/// Whether one that waits fits beside the running ones to their ends, as far as the admission looks at that.
bool Scheduler::Impl::is_foreseen_to_fit(const Request& request, std::int64_t saved) const {
  if (!looks_ahead()) return true;
  Outlook outlook = draft.outlook;
  foresee(outlook, request, saved);
  if (config.admission == AdmissionPolicy::never_evict && has_windows) {
    return outlook.fits(static_cast<double>(cache_config.num_blocks) - static_cast<double>(pinned_blocks));
  }
  return outlook.fits(draft.available);
}

}  // namespace pagedcore
