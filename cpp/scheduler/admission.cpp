// Who may come in: waiting requests, in the order of service, as long as there is room.
#include <algorithm>

#include "scheduler/state.hpp"

namespace pagedcore {

using sched::Request;
using sched::Sample;

namespace {
constexpr std::uint32_t kMostPassed = 64;  // requests that may be passed in one plan: bounds its time
}  // namespace

/// Blocks that a started sample with `has` tokens in its blocks still needs for the tokens it knows and, unless the
/// admission is the paper's, the next one.
std::uint64_t Scheduler::Impl::blocks_promised(const Request& request, const Sample& sample, std::uint32_t has) const {
  const std::uint64_t known = request.size(sample) + std::uint64_t{config.admission != AdmissionPolicy::watermark};
  const std::uint64_t wanted = std::min(known, std::uint64_t{request.max_length()});
  const std::uint64_t blocks = cache.footprint(wanted), held = cache.footprint(has);
  return blocks > held ? blocks - held : 0;
}

/// Prompt tokens in blocks that all samples share.
std::uint32_t Scheduler::Impl::shared_tokens(const Request& request) const noexcept {
  return request.prompt_size - request.prompt_size % cache_config.block_size;
}

/// Blocks that a request still needs once its leader has `has` tokens: the leader's rest, and for every other sample
/// all that is not shared. A group that fitted with sharing fits again.
std::uint64_t Scheduler::Impl::blocks_after_start(const Request& request, std::uint32_t leader,
                                                  std::uint32_t has) const {
  std::uint64_t blocks = blocks_promised(request, request.samples[leader], has);
  if (request.max_tokens <= 1) return blocks;
  const std::uint32_t shared = shared_tokens(request);
  if (request.is_beam_search() && !request.sampled) {  // beams that will be forked from the one there is
    return blocks + (request.beam_width - 1) * blocks_promised(request, request.samples[leader], shared);
  }
  for (const Sample& sample : request.samples) {
    if (!sample.is_finished() && &sample != &request.samples[leader]) {
      blocks += blocks_promised(request, sample, shared);
    }
  }
  return blocks;
}

/// Whether a running request, or one that this plan admits, is about to compute a longer common prefix of `tokens` than
/// the `has` tokens found in the cache: whole blocks, at most `most` tokens. Who is about to compute is running, so it
/// gets there, or is preempted and waited for no more. One of a lower priority is not waited for.
bool Scheduler::Impl::is_being_computed(const Request& request, const std::vector<TokenId>& tokens, std::uint32_t has,
                                        std::uint32_t most) const noexcept {
  const auto computes = [&](const Request& other, const Sample& leader, std::uint32_t computed) {
    const std::uint32_t known = std::min(other.target(leader), most);
    if (other.salt != request.salt || other.priority < request.priority || known <= has || computed + 1 >= known)
      return false;
    const auto common = std::mismatch(leader.tokens.begin(), leader.tokens.begin() + known, tokens.begin()).first;
    const auto shared = static_cast<std::uint32_t>(common - leader.tokens.begin());
    const std::uint32_t whole = shared / cache_config.block_size * cache_config.block_size;
    return whole > has && computed < whole;
  };
  for (const Request* other = running.front(); other != nullptr; other = other->next) {
    const Sample& leader = other->samples[other->leader()];
    if (leader.started && computes(*other, leader, leader.computed)) return true;
  }
  return std::ranges::any_of(draft.admissions, [&](const sched::Admission& admission) {
    const sched::Work& work = draft.work[admission.work];
    return computes(*admission.request, admission.request->samples[work.sample], work.first);
  });
}

/// Lets in those who wait and come before `next`, a running request, or all of them (null): in order, as long as they
/// fit. Only one that waits for its prefix lets others pass, and no others than fit beside it. A plan that preempts
/// admits nobody any more. False when running requests have made way for one that waits: what comes behind it computes
/// nothing in this step, so that the room is still there in the next.
bool Scheduler::Impl::admit(const Request* next) {
  while (!draft.closed && draft.victims == 0 && !draft.is_full()) {
    Request* request = waiting.peek();
    if (request == nullptr || (next != nullptr && request->priority <= next->priority)) return true;
    if (request->evicted) {
      waiting.pass(*request);
      continue;
    }
    const bool alone = running.empty() && draft.admissions.empty() && draft.swap_ins.empty();
    if (!alone && draft.running_samples + request->group_size() > config.max_sequences) {
      draft.closed = true;
      return true;
    }
    bool waits = false;
    if (!(request->swapped ? resume(*request, alone) : start(*request, alone, waits))) {
      draft.closed = true;
      return next == nullptr || !make_way(*request, draft.wanted);
    }
    waiting.pass(*request);
    draft.running_samples += request->group_size();
    if (!waits) continue;
    stats.prefix_waits += !request->waited;
    request->waited = true;
    const bool for_pinned = request->prefix != nullptr && request->prefix->computing != nullptr;
    draft.closed = !for_pinned && ++draft.passed == kMostPassed;
  }
  return true;
}

/// What a tenant is charged when a request of it comes in with its first `first` tokens computed. Only once: computing
/// them again is no service.
double Scheduler::Impl::charge(const Request& request, std::uint32_t first) const noexcept {
  if (request.charged) return 0.0;
  return config.prompt_weight * (request.prompt_size - std::min(first, request.prompt_size));
}

/// Brings one back from the swap space, with room for what it computes next. It computes from the next step on, so that
/// nothing is lost but time when its blocks cannot be read.
bool Scheduler::Impl::resume(Request& request, bool alone) {
  sched::Swap swap{&request, {}};
  std::uint64_t later = 0;
  for (const Sample& sample : request.samples) {
    if (sample.is_finished()) continue;
    if (sample.started) swap.sequences.push_back(sample.sequence);
    later += blocks_promised(request, sample, sample.started ? sample.computed : shared_tokens(request));
  }
  const std::uint64_t spare = draft.promised + later + watermark_blocks;
  if (alone) {
    while (!draft.scratch->swap_in(swap.sequences)) {
      if (!give_up_later(request)) return false;
    }
  } else if (!is_foreseen_to_fit(request, 0) || !draft.scratch->swap_in(swap.sequences, spare)) {
    draft.wanted = draft.promised + blocks_after_start(request, request.leader(), 0) + watermark_blocks;
    return false;
  }
  draft.swap_ins.push_back(std::move(swap));
  draft.promised += later;
  if (looks_ahead()) foresee(draft.outlook, request, 0);
  return true;
}

/// Lets one in. The whole prompt must fit, not only its first chunk, above what running requests were promised and
/// above the watermark; else prompts that were let in together would preempt each other for ever. With nothing running
/// the head of the queue always comes in: it fits alone. `waits` is set for one whose prefix is being computed.
bool Scheduler::Impl::start(Request& request, bool alone, bool& waits) {
  const std::uint32_t leader = request.leader();
  const Sample& sample = request.samples[leader];
  const std::uint32_t size = request.target(sample);
  // One row at least is computed; of the last token it is needed for sampling, and all prompt rows for their logprobs.
  std::uint32_t most = request.scores ? 0 : size - 1;
  if (has_windows) {  // other samples fork where the leader's windows still reach
    for (const Sample& other : request.samples) {
      if (&other != &sample && !other.is_finished()) most = std::min(most, other.fork_length);
    }
  }
  if (!paged) {
    const std::uint32_t reserved = cache.reservation(request.prompt_size, request.max_tokens);
    if (!draft.scratch->reserve(request.most_sequences(), reserved)) return false;
    const SequenceId sequence{next_sequence + draft.admissions.size()};
    draft.admissions.push_back({.request = &request, .work = draft.work.size(), .reserved = reserved});
    add_work(request, leader, sequence, 0, std::min(size, draft.rows_left));
    request.tenant->drafted += charge(request, 0);
    return true;
  }
  const bool is_new = sample.computed_before == 0;
  PrefixMatch match;
  if (most > 0 && (caching || !is_new)) match = cache.match_prefix(sample.tokens, request.salt, most);
  if (caching && most > 0 && is_being_computed(request, sample.tokens, match.num_tokens, most)) waits = true;
  std::uint32_t pinned = 0;
  if (request.prefix != nullptr && !request.scores) {
    if (request.prefix->computing != nullptr) waits = true;
    if (raw(request.prefix->sequence) != 0) {
      pinned = std::min(static_cast<std::uint32_t>(request.prefix->tokens.size()), most);
      if (has_windows && pinned < request.prefix->tokens.size()) pinned = 0;  // its windows have passed that
    }
  }
  if (waits) {
    draft.promised += blocks_after_start(request, leader, match.num_tokens);
    if (looks_ahead()) foresee(draft.outlook, request, blocks_saved(match));
    return true;
  }
  // The cache may know the prefix by other blocks than those that are pinned; then it would be held twice.
  bool from_prefix = pinned > match.num_tokens;
  if (pinned > 0 && !from_prefix) {
    const auto table = cache.block_table(request.prefix->sequence);
    const auto shared = static_cast<std::ptrdiff_t>(pinned / cache_config.block_size * cache.num_groups());
    from_prefix = !has_windows && !std::equal(table.begin(), table.begin() + shared, match.blocks.begin());
  }
  while (true) {
    const std::uint32_t first = from_prefix ? pinned : match.num_tokens;
    const std::uint32_t rows = std::min(size - first, draft.rows_left);
    const std::uint64_t later = blocks_after_start(request, leader, first + rows);
    const std::uint64_t spare = alone ? 0 : draft.promised + later + watermark_blocks;
    const std::int64_t saved = from_prefix ? first / cache_config.block_size * cache.num_groups() : blocks_saved(match);
    const bool fits = (alone || is_foreseen_to_fit(request, saved)) &&
                      (from_prefix ? draft.scratch->fork(request.prefix->sequence, first, first + rows, spare)
                                   : draft.scratch->create(match, first + rows, spare));
    if (fits) {
      const SequenceId sequence{next_sequence + draft.admissions.size()};
      draft.admissions.push_back(
          {.request = &request, .work = draft.work.size(), .match = std::move(match), .from_prefix = from_prefix});
      add_work(request, leader, sequence, first, rows);
      draft.promised += later;
      if (looks_ahead()) foresee(draft.outlook, request, saved);
      request.tenant->drafted += charge(request, first);
      return true;
    }
    draft.wanted = draft.promised + blocks_after_start(request, leader, first) + watermark_blocks;
    if (!alone) return false;
    // A match may take a block more than nothing, the one it copies from: do without. Then take from those who wait.
    if (const std::uint32_t partial = match.num_tokens % cache_config.block_size;
        partial > 0 && !has_windows && !from_prefix) {
      match.num_tokens -= partial;
      match.blocks.resize(match.blocks.size() - cache.num_groups());
    } else if (match.num_tokens > 0 && !from_prefix) {
      match = {};
    } else if (!give_up_later(request)) {
      return false;
    }
  }
}

}  // namespace pagedcore
