// What requests may take, or are expected to take: for admissions that look ahead.
#include <algorithm>

#include "scheduler/draft.hpp"

namespace pagedcore::sched {

/// Adds what a request will take beyond what it holds at the beginning of the plan; of one that would be admitted, with
/// so many blocks saved.
void Draft::foresee(Outlook& outlook, const Request& request, std::optional<std::int64_t> saved) const {
  if (state_.config.admission == AdmissionPolicy::never_evict) {
    const auto most = static_cast<std::int64_t>(request.limits.most_blocks);
    // With windows a request lets go of blocks that others hold too, which frees nothing: so nothing counts as held.
    const std::int64_t held = state_.rules.has_windows ? 0 : saved ? *saved : state_.blocks_held(request);
    outlook.add(static_cast<double>(std::max<std::int64_t>(0, most - held)));
    return;
  }
  const std::uint32_t leader = request.leader();
  const std::int64_t cached_blocks = saved ? std::max<std::int64_t>(0, *saved) / state_.rules.num_layer_groups : 0;
  const auto cached = static_cast<std::uint32_t>(cached_blocks * state_.rules.block_size);
  const std::uint32_t common = std::min(state_.shared_tokens(request), request.samples[leader].computed);
  const auto add = [&](const Sample& sample, std::uint32_t has, double own) {
    const std::uint32_t size = request.size(sample);
    const std::uint64_t left = std::uint64_t{request.limits.prompt_size} + request.limits.max_tokens - size;
    const std::uint64_t held = state_.cache.footprint(has);
    const bool only_computes = request.limits.max_tokens == 0;  // as if it stayed: a registered prefix does
    outlook.add(
        only_computes ? std::uint64_t{1} << 32 : left, own,
        [&](std::uint32_t tokens) {
          const bool is_certain = only_computes || request.is_beam_search();
          return is_certain ? 1.0 : state_.output_lengths.chance(size - request.limits.prompt_size, tokens);
        },
        [&](std::uint32_t tokens) {
          const std::uint64_t length = std::min(std::uint64_t{size} + tokens, std::uint64_t{request.max_length()});
          const std::uint64_t blocks = state_.cache.footprint(length);
          return static_cast<double>(blocks - std::min(blocks, held));
        });
  };
  for (std::uint32_t i = 0; i < request.samples.size(); ++i) {
    const Sample& sample = request.samples[i];
    if (sample.is_finished()) continue;
    if (saved || !sample.started) {
      add(sample, i == leader ? cached : state_.shared_tokens(request), 0.0);
      continue;
    }
    // What its end sets free: not what it found in the cache, nor what the group shares.
    const bool is_one = request.samples.size() == 1;
    const std::uint32_t kept = is_one ? std::min(request.progress.cached_at_admission, sample.computed) : common;
    const std::uint64_t blocks = state_.cache.footprint(sample.computed) - state_.cache.footprint(kept);
    add(sample, sample.computed, static_cast<double>(blocks));
  }
  if (request.is_beam_search() && !request.progress.sampled) {
    for (std::uint32_t k = 1; k < request.limits.beam_width; ++k)
      add(request.samples[leader], state_.shared_tokens(request), 0.0);
  }
}

/// Whether one that waits fits beside the running ones to their ends, as far as the admission looks at that.
bool Draft::is_foreseen_to_fit(const Request& request, std::int64_t saved) const {
  if (!state_.rules.looks_ahead) return true;
  Outlook outlook = outlook_;
  foresee(outlook, request, saved);
  if (state_.config.admission == AdmissionPolicy::never_evict && state_.rules.has_windows) {
    return outlook.fits(static_cast<double>(state_.cache_config.num_blocks) -
                        static_cast<double>(state_.prefixes.blocks()));
  }
  return outlook.fits(available_);
}

}  // namespace pagedcore::sched
