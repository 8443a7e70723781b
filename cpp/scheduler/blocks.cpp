// How many blocks requests hold, need for what they know, and may come to need.
#include <algorithm>

#include "scheduler/state.hpp"

namespace pagedcore::sched {

/// The most blocks that a request may come to hold. In a group of layers with a window every sequence holds what the
/// window reaches, and what a step adds to all of them together.
SchedulerState::Need SchedulerState::blocks_needed(std::uint64_t prompt, std::uint32_t max_tokens,
                                                   std::uint64_t sequences) const noexcept {
  const std::uint64_t block_size = rules.block_size;
  const auto blocks_for = [&](std::uint64_t tokens) { return (tokens + block_size - 1) / block_size; };
  const bool one_row = max_tokens <= 1;  // samples never write a token of their own
  Need need;
  need.shared = one_row ? blocks_for(prompt) : prompt / block_size;
  need.own = one_row ? 0 : blocks_for(prompt + max_tokens - 1) - need.shared;
  need.sequences = sequences;
  const std::uint64_t all = need.shared + need.own * need.sequences;
  for (const std::uint32_t window : rules.windows) {
    const std::uint64_t seen = need.sequences * (blocks_for(window) + 2) + blocks_for(config.max_batched_tokens);
    need.total += window == 0 ? all : std::min(all, seen);
  }
  return need;
}

SchedulerState::Need SchedulerState::blocks_needed(const SchedulerRequest& request) const noexcept {
  return blocks_needed(request.prompt.size(), request.max_tokens, std::max(request.beam_width, request.num_samples));
}

/// What a request needs of its own with `max_tokens`.
std::uint64_t SchedulerState::blocks_of_its_own(const Request& request, std::uint32_t max_tokens) const noexcept {
  const std::uint64_t sequences = std::max<std::size_t>(request.samples.size(), request.limits.beam_width);
  const std::uint64_t of_prefix = request.limits.most_blocks - request.limits.own_blocks;
  return blocks_needed(request.limits.prompt_size, max_tokens, sequences).total - of_prefix;
}

/// Lowers max_tokens of an open-ended request until it needs at most `blocks` of its own.
void SchedulerState::fit_into(Request& request, std::uint64_t blocks) noexcept {
  RequestLimits& limits = request.limits;
  if (!limits.is_open_ended || limits.own_blocks <= blocks) return;
  // It ends with a draw, so it has one more at least. The most that fits is in between.
  std::uint32_t low = request.generated() + 1, high = limits.max_tokens;
  while (low < high) {
    const std::uint32_t middle = low + (high - low + 1) / 2;
    if (blocks_of_its_own(request, middle) <= blocks) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  const std::uint64_t own = blocks_of_its_own(request, low);
  limits = {.prompt_size = limits.prompt_size,
            .max_tokens = low,
            .beam_width = limits.beam_width,
            .is_open_ended = true,
            .is_whole = limits.is_whole,
            .unscored = limits.unscored,
            .most_blocks = limits.most_blocks - limits.own_blocks + own,
            .own_blocks = own};
}

/// Blocks that a started sample with `has` tokens in its blocks still needs for the tokens it knows and, unless the
/// admission is the paper's, the next one.
std::uint64_t SchedulerState::blocks_promised(const Request& request, const Sample& sample, std::uint32_t has) const {
  const std::uint64_t known = request.size(sample) + std::uint64_t{config.admission != AdmissionPolicy::watermark};
  const std::uint64_t wanted = std::min(known, std::uint64_t{request.max_length()});
  const std::uint64_t blocks = cache.footprint(wanted), held = cache.footprint(has);
  return blocks > held ? blocks - held : 0;
}

/// Prompt tokens in blocks that all samples share.
std::uint32_t SchedulerState::shared_tokens(const Request& request) const noexcept {
  return request.limits.prompt_size - request.limits.prompt_size % rules.block_size;
}

/// Blocks that a request still needs once its leader has `has` tokens: the leader's rest, and for every other sample
/// all that is not shared. A group that fitted with sharing fits again.
std::uint64_t SchedulerState::blocks_after_start(const Request& request, std::uint32_t leader,
                                                 std::uint32_t has) const {
  std::uint64_t blocks = blocks_promised(request, request.samples[leader], has);
  if (request.limits.max_tokens <= 1) return blocks;
  const std::uint32_t shared = shared_tokens(request);
  if (request.is_beam_search() && !request.progress.sampled) {  // beams that will be forked from the one there is
    return blocks + (request.limits.beam_width - 1) * blocks_promised(request, request.samples[leader], shared);
  }
  for (const Sample& sample : request.samples) {
    if (!sample.is_finished() && &sample != &request.samples[leader]) {
      blocks += blocks_promised(request, sample, shared);
    }
  }
  return blocks;
}

/// Blocks of all sequences of a request, one that several share once. One that strangers share counts for less than
/// one: never too many.
std::int64_t SchedulerState::blocks_held(const Request& request) const {
  if (request.samples.size() == 1) return std::ssize(cache.block_table(request.samples[0].sequence));
  double blocks = 0.0;
  for (const Sample& sample : request.samples) {
    if (!sample.started) continue;
    for (const BlockId block : cache.block_table(sample.sequence)) blocks += 1.0 / cache.references(block);
  }
  return static_cast<std::int64_t>(blocks + 1e-6);
}

/// Blocks that one which is admitted with this match need not take, since others hold them. A match inside a block
/// takes one more until that is copied.
std::int64_t SchedulerState::blocks_saved(const PrefixMatch& match) const {
  std::int64_t saved = 0;
  for (const BlockId block : match.blocks) saved += block != kNoBlock && cache.references(block) > 0;
  return match.num_tokens % rules.block_size > 0 ? saved - rules.num_layer_groups : saved;
}

}  // namespace pagedcore::sched
