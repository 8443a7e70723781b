// Registered prefixes (section 4.4): computed by a request like any other, then kept by nobody's request until they are
// released and no request that names them is left.
#include <algorithm>

#include "base/text.hpp"
#include "pagedcore/error.hpp"
#include "scheduler/state.hpp"

namespace pagedcore {

using sched::PinnedPrefix;
using sched::Request;

PinnedPrefix* Scheduler::Impl::find_prefix(PrefixId id) const noexcept {
  const auto found =
      std::ranges::find_if(prefixes, [&](const auto& prefix) { return !prefix->released && prefix->id == id; });
  return found == prefixes.end() ? nullptr : found->get();
}

void Scheduler::Impl::register_prefix(PrefixId id, SchedulerRequest spec) {
  if (raw(id) == 0) throw InvalidArgument("prefix 0 means no prefix; choose another id");
  if (!paged) {
    throw InvalidArgument(str("prefix ", raw(id), ": a contiguous cache shares nothing; use paged allocation"));
  }
  if (find_prefix(id) != nullptr) {
    throw InvalidArgument(str("prefix ", raw(id), " is registered; release it first or choose another id"));
  }
  spec.num_samples = 1;
  spec.beam_width = spec.max_tokens = 0;
  spec.prompt_logprobs = false;
  spec.prefix = PrefixId{0};
  validate(spec);
  auto prefix = std::make_unique<PinnedPrefix>();
  prefix->id = id;
  prefix->tokens = spec.prompt;
  prefix->salt = spec.salt;
  prefix->blocks = cache.footprint(spec.prompt.size());
  // While it is computed it may hold more, but then it is a request that can be preempted.
  std::uint64_t most = blocks_needed(spec).total - prefix->blocks;
  each_request([&](const Request& request) { most = std::max(most, request.needs); });
  if (pinned_blocks + prefix->blocks + most > cache_config.num_blocks) {
    throw InvalidArgument(str("prefix ", raw(id), ": its ", spec.prompt.size(), " tokens pin ", prefix->blocks,
                              " KV blocks; with ", pinned_blocks, " pinned by other prefixes and ", most,
                              " that a request already accepted may need that makes ",
                              pinned_blocks + prefix->blocks + most, ", but the cache has ", cache_config.num_blocks,
                              "; shorten it, release another, wait for requests to end, or enlarge the cache"));
  }
  spec.priority = kMostPriority + 1;  // whoever names it waits for it
  prefixes.reserve(prefixes.size() + 1);
  Request& request = enqueue(std::move(spec));
  request.needs = 0;  // counted as pinned
  request.pins = prefix.get();
  prefix->computing = &request;
  pinned_blocks += prefix->blocks;
  prefixes.push_back(std::move(prefix));
}

void Scheduler::Impl::release_prefix(PrefixId id) {
  PinnedPrefix* prefix = find_prefix(id);
  if (prefix == nullptr)
    throw InvalidArgument(str("prefix ", raw(id), " is unknown; it was released, or never registered"));
  prefix->released = true;
  if (prefix->computing != nullptr) {
    remove(*prefix->computing);  // settles it
  } else {
    settle(*prefix);
  }
}

/// Lets a prefix go that is released and that nobody uses.
void Scheduler::Impl::settle(PinnedPrefix& prefix) noexcept {
  if (!prefix.released || prefix.users > 0 || prefix.computing != nullptr) return;
  if (raw(prefix.sequence) != 0) cache.free(prefix.sequence, StepId{next_step - 1});  // the last that may read it
  pinned_blocks -= prefix.blocks;
  std::erase_if(prefixes, [&](const auto& other) { return other.get() == &prefix; });
}

}  // namespace pagedcore
