// Who may come in: the check of a submission, and the admission of waiting requests.
#include <algorithm>
#include <cmath>
#include <limits>

#include "base/text.hpp"
#include "pagedcore/error.hpp"
#include "scheduler/state.hpp"

namespace pagedcore {

using sched::Request;
using sched::Sample;

namespace {
constexpr std::uint32_t kMaxSamples = 65536;
constexpr std::uint32_t kMostPassed = 64;  // requests that may be passed in one plan: bounds its time
}  // namespace

/// A request that passes can always finish when it is alone: full prompt blocks are shared by its samples, everything
/// behind them is each sample's own. That holds with copy-on-write too: a shared, partly filled block is counted once
/// for every sample that may come to own a copy of it.
void Scheduler::Impl::validate(const SchedulerRequest& request) const {
  const auto name = [&] { return str("request ", raw(request.id), ": "); };
  if (request.prompt.empty()) throw InvalidArgument(name() + "the prompt is empty; it needs one token at least");
  if (const auto bad = std::ranges::find_if(request.prompt, [](TokenId token) { return token < 0; });
      bad != request.prompt.end()) {
    throw InvalidArgument(name() + str("token ", *bad, " at position ", bad - request.prompt.begin(),
                                       " of the prompt is negative; tokens are in [0, vocabulary)"));
  }
  if (request.num_samples == 0 || request.num_samples > kMaxSamples) {
    throw InvalidArgument(name() +
                          str("num_samples is ", request.num_samples, "; it must be in [1, ", kMaxSamples, "]"));
  }
  if (std::isnan(request.arrival)) throw InvalidArgument(name() + "arrival is not a number; use seconds on one clock");

  if (request.beam_width > 0) {
    if (request.num_samples != 1 || request.prompt_logprobs || request.max_tokens == 0) {
      throw InvalidArgument(name() + str("a beam search of width ", request.beam_width,
                                         " generates tokens, takes no samples and scores no prompt; submit a request "
                                         "of its own for num_samples, prompt_logprobs or max_tokens = 0"));
    }
    const std::uint32_t most = std::min(config.max_sequences, config.max_batched_tokens);
    if (request.beam_width > most) {
      throw InvalidArgument(name() + str("a beam search of width ", request.beam_width, " computes ",
                                         request.beam_width, " sequences in one step, but a step has at most ", most,
                                         " (the lower of max_sequences = ", config.max_sequences,
                                         " and max_batched_tokens = ", config.max_batched_tokens,
                                         "); lower the width, or raise that"));
    }
  }
  const std::uint64_t prompt = request.prompt.size();
  const std::uint64_t context = prompt + request.max_tokens;
  const std::uint64_t limit = config.max_context != 0 ? config.max_context : std::numeric_limits<std::uint32_t>::max();
  if (context > limit) {
    throw InvalidArgument(name() +
                          str("a prompt of ", prompt, " tokens and max_tokens = ", request.max_tokens, " make ",
                              context, ", but a sequence has at most ", limit, " (max_context); ",
                              prompt < limit ? str("lower max_tokens to ", limit - prompt, " or less, or ") : "",
                              "shorten the prompt"));
  }
  if (!paged) return validate_reservation(request);
  const Need need = blocks_needed(request);
  if (need.total > cache_config.num_blocks) {
    throw InvalidArgument(
        name() +
        str("a prompt of ", prompt, " tokens and ", need.sequences, " x ", request.max_tokens, " generated ones need ",
            need.shared, " shared + ", need.sequences, " x ", need.own, " = ", need.shared + need.sequences * need.own,
            " KV blocks of ", cache_config.block_size, " tokens",
            has_windows || cache.num_groups() > 1 ? str(" in each of ", cache.num_groups(), " groups of layers, ",
                                                        need.total, " in all where windows free some")
                                                  : "",
            ", but the cache has ", cache_config.num_blocks, "; lower max_tokens or ",
            request.beam_width > 0 ? "beam_width" : "num_samples", ", shorten the prompt, or enlarge the cache"));
  }
}

/// Contiguous allocation: the chunks of the whole group, in an empty cache.
void Scheduler::Impl::validate_reservation(const SchedulerRequest& request) const {
  const std::uint32_t count = std::max(request.beam_width, request.num_samples);
  const auto prompt = static_cast<std::uint32_t>(request.prompt.size());
  const std::uint64_t context = std::uint64_t{prompt} + request.max_tokens;
  if (context > cache_config.max_reservation) {
    throw InvalidArgument(str("request ", raw(request.id), ": a prompt of ", prompt, " tokens and max_tokens = ",
                              request.max_tokens, " make ", context, ", but a reservation has at most ",
                              cache_config.max_reservation, " (max_reservation); lower max_tokens or raise that"));
  }
  const std::uint32_t tokens = cache.reservation(prompt, request.max_tokens);
  const std::uint32_t order = kv::BuddyAllocator::order_of(cache.blocks_for(tokens));
  kv::BuddyAllocator::Counts left = chunks;
  for (std::uint32_t i = 0; i < count; ++i) {
    if (kv::BuddyAllocator::take(left, order)) continue;
    throw InvalidArgument(str("request ", raw(request.id), ": its ", count, " sequence(s) reserve ", tokens,
                              " tokens each, a chunk of ", 1u << order, " KV blocks of ", cache_config.block_size,
                              " tokens, but an empty cache of ", cache_config.num_blocks, " has ", i,
                              " such chunks; lower max_tokens or the number of samples, or enlarge the cache"));
  }
}

/// The most blocks that a request may come to hold. In a group of layers with a window every sequence holds what the
/// window reaches, and what a step adds to all of them together.
Scheduler::Impl::Need Scheduler::Impl::blocks_needed(const SchedulerRequest& request) const noexcept {
  const std::uint64_t block_size = cache_config.block_size;
  const auto blocks_for = [&](std::uint64_t tokens) { return (tokens + block_size - 1) / block_size; };
  const std::uint64_t prompt = request.prompt.size();
  const bool one_row = request.max_tokens <= 1;  // samples never write a token of their own
  Need need;
  need.shared = one_row ? blocks_for(prompt) : prompt / block_size;
  need.own = one_row ? 0 : blocks_for(prompt + request.max_tokens - 1) - need.shared;
  need.sequences = std::max(request.beam_width, request.num_samples);
  const std::uint64_t all = need.shared + need.own * need.sequences;
  for (const std::uint32_t window : windows) {
    const std::uint64_t seen = need.sequences * (blocks_for(window) + 2) + blocks_for(config.max_batched_tokens);
    need.total += window == 0 ? all : std::min(all, seen);
  }
  return need;
}

/// Blocks that a started sample with `has` tokens in its blocks still needs for the tokens it knows and the next one.
std::uint64_t Scheduler::Impl::blocks_promised(const Request& request, const Sample& sample, std::uint32_t has) const {
  const std::uint64_t wanted = std::min(std::uint64_t{request.size(sample)} + 1, std::uint64_t{request.max_length()});
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
/// gets there, or is preempted and waited for no more.
bool Scheduler::Impl::is_being_computed(const std::vector<TokenId>& tokens, std::uint32_t has, std::uint32_t most,
                                        std::uint64_t salt) const noexcept {
  const auto computes = [&](const Request& other, const Sample& leader, std::uint32_t computed) {
    const std::uint32_t known = std::min(other.target(leader), most);
    if (other.salt != salt || known <= has || computed + 1 >= known) return false;
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

/// First come, first served. Only a request that waits for its prefix lets others pass, and no others than fit beside
/// it.
void Scheduler::Impl::admit() {
  bool alone = running.empty();
  std::uint32_t passed = 0;
  for (Request* request = waiting.front(); request != nullptr && !draft.is_full(); request = request->next) {
    if (request->evicted) continue;
    if (!alone && draft.running_samples + request->group_size() > config.max_sequences) return;
    bool waits = false;
    if (request->swapped) {
      if (!resume(*request, alone)) return;
    } else if (!start(*request, alone, waits)) {
      return;
    }
    if (waits) {
      const bool for_pinned = request->prefix != nullptr && request->prefix->computing != nullptr;
      if (!for_pinned && ++passed == kMostPassed) return;
      stats.prefix_waits += !request->waited;
      request->waited = true;
    } else {
      alone = false;
    }
    draft.running_samples += request->group_size();
  }
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
  while (!draft.scratch->swap_in(swap.sequences)) {
    if (!alone || !give_up_later(request)) return false;
  }
  if (!alone && draft.scratch->available() < draft.promised + later + watermark_blocks) return false;
  draft.swap_ins.push_back(std::move(swap));
  draft.promised += later;
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
    return true;
  }
  const bool is_new = sample.computed_before == 0;
  PrefixMatch match;
  if (most > 0 && (caching || !is_new)) match = cache.match_prefix(sample.tokens, request.salt, most);
  if (caching && most > 0 && is_being_computed(sample.tokens, match.num_tokens, most, request.salt)) waits = true;
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
    const bool fits = from_prefix ? draft.scratch->fork(request.prefix->sequence, first, first + rows)
                                  : draft.scratch->create(match, first + rows);
    const std::uint64_t later = blocks_after_start(request, leader, first + rows);
    if (fits && (alone || draft.scratch->available() >= draft.promised + later + watermark_blocks)) {
      const SequenceId sequence{next_sequence + draft.admissions.size()};
      draft.admissions.push_back(
          {.request = &request, .work = draft.work.size(), .match = std::move(match), .from_prefix = from_prefix});
      add_work(request, leader, sequence, first, rows);
      draft.promised += later;
      return true;
    }
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
