// Who is admitted: waiting requests, in the order of service, as long as there is room.
#include <algorithm>

#include "scheduler/draft.hpp"

namespace pagedcore::sched {

namespace {
constexpr std::uint32_t kMostPassed = 64;  // requests that may be passed in one plan: bounds its time
}  // namespace

double charge_of(const SchedulerConfig& config, const Request& request, std::uint32_t first) noexcept {
  if (request.progress.charged) return 0.0;
  return config.prompt_weight * (request.limits.prompt_size - std::min(first, request.limits.prompt_size));
}

/// Whether a running request, or one that this plan admits, is about to compute a longer common prefix of the sample
/// than the `has` tokens found in the cache: whole blocks, at most `most` tokens. Who is about to compute is running,
/// so it gets there, or is preempted and waited for no more. One of a lower priority is not waited for.
bool Draft::has_prefix_underway(const Request& request, const Sample& sample, std::uint32_t has, std::uint32_t most) {
  const std::uint32_t block_size = state_.rules.block_size;
  const auto computes = [&](const Request& other, const Sample& leader, std::uint32_t computed) {
    if (other.limits.is_whole) return false;
    if (other.salt != request.salt || other.key.priority < request.key.priority) return false;
    const std::uint32_t known = std::min(other.target(leader), most);
    if (known <= has || computed + 1 >= known) return false;
    const std::uint32_t prompts = std::min({known, other.limits.prompt_size, request.limits.prompt_size});
    const TokenId* const begin = other.prompt.data();
    auto shared =
        static_cast<std::uint32_t>(std::mismatch(begin, begin + prompts, request.prompt.data()).first - begin);
    if (shared == prompts) {  // where one of them has an output
      while (shared < known && other.token(leader, shared) == request.token(sample, shared)) ++shared;
    }
    const std::uint32_t whole = shared / block_size * block_size;
    return whole > has && computed < whole;
  };
  for (const Request* other : computing()) {
    const Sample& leader = other->samples[other->leader()];
    if (computes(*other, leader, leader.computed)) return true;
  }
  return std::ranges::any_of(decisions_.admissions, [&](const Admission& admission) {
    const Work& work = decisions_.work[admission.work];
    return computes(*admission.request, admission.request->samples[work.sample], work.first);
  });
}

/// The running requests whose leader lacks more than its last token. Most decode, and each request that is admitted
/// would pass all of those: they are passed once in a plan.
const std::vector<const Request*>& Draft::computing() {
  if (has_listed_computing_) return computing_;
  computing_.clear();
  for (const Request* request = state_.running.front(); request != nullptr; request = request->place.next) {
    const Sample& leader = request->samples[request->leader()];
    if (leader.started && leader.computed + 1 < request->target(leader)) computing_.push_back(request);
  }
  has_listed_computing_ = true;
  return computing_;
}

/// Admits those who wait and come before `next`, a running request, or all of them (null): in order, as long as they
/// fit. Only one that waits for its prefix lets others pass, and no others than fit beside it. A plan that preempts
/// admits nobody any more. False when running requests are preempted for one that waits: what comes behind it computes
/// nothing in this step, so that the room is still there in the next.
bool Draft::admit(const Request* next) {
  while (!closed_ && decisions_.preemptions == 0 && !is_full()) {
    const Request* request = walk_.peek();
    if (request == nullptr || (next != nullptr && request->key.priority <= next->key.priority)) return true;
    if (has_departed(*request)) {
      walk_.pass(0.0);
      continue;
    }
    const Candidate candidate{*request,
                              state_.running.empty() && decisions_.admissions.empty() && decisions_.swap_ins.empty()};
    if (!candidate.alone && running_samples_ + request->group_size() > state_.config.max_sequences) {
      closed_ = true;
      return true;
    }
    if (request->limits.is_whole &&
        request->limits.prompt_size > rows_left_) {  // in a step that has room for all of it
      closed_ = true;
      return true;
    }
    const std::size_t admitted = decisions_.admissions.size();
    bool waits = false;
    if (!(request->swapped ? resume(candidate) : start(candidate, waits))) {
      closed_ = true;
      return next == nullptr || !preempt_for_waiting(*request, wanted_);
    }
    running_samples_ += request->group_size();
    walk_.pass(decisions_.admissions.size() > admitted
                   ? charge_of(state_.config, *request, decisions_.work[decisions_.admissions.back().work].first)
                   : 0.0);
    if (!waits) continue;
    const bool for_store =
        request->progress.stored > 0 && (request->progress.reads_store ||
                                         (!decisions_.store_reads.empty() && decisions_.store_reads.back() == request));
    if (!request->progress.waited && !for_store) decisions_.begin_to_wait.push_back(request);
    const bool for_pinned = request->prefix_used != nullptr && request->prefix_used->computing != nullptr;
    closed_ = !for_pinned && ++passed_ == kMostPassed;
  }
  return true;
}

/// Brings one back from the swap space, with room for what it computes next. It computes from the next step on, so that
/// nothing is lost but time when its blocks cannot be read.
bool Draft::resume(const Candidate& candidate) {
  const Request& request = candidate.request;
  SwapIn swap{&request, {}};
  std::uint64_t later = 0;
  for (const Sample& sample : request.samples) {
    if (sample.is_finished()) continue;
    if (sample.started) swap.sequences.push_back(sample.sequence);
    later += state_.blocks_promised(request, sample, sample.started ? sample.computed : state_.shared_tokens(request));
  }
  const std::uint64_t spare = promised_ + later + state_.rules.watermark_blocks;
  if (candidate.alone) {
    while (!scratch_->swap_in(swap.sequences)) {
      if (!discard_behind(request)) return false;
    }
  } else if (!is_foreseen_to_fit(request, 0) || !scratch_->swap_in(swap.sequences, spare)) {
    wanted_ = promised_ + state_.blocks_after_start(request, request.leader(), 0) + state_.rules.watermark_blocks;
    return false;
  }
  decisions_.swap_ins.push_back(std::move(swap));
  promised_ += later;
  if (state_.rules.looks_ahead) foresee(outlook_, request, 0);
  return true;
}

/// The most tokens of a match that are of use. One row at least is computed; of the last token it is needed for
/// sampling, and those that score tokens for their logprobs.
std::uint32_t Draft::most_cached(const Request& request, const Sample& leader) const noexcept {
  std::uint32_t most = std::min(request.target(leader) - 1, leader.most_shared);
  if (request.progress.scores) most = std::min(most, request.limits.unscored);
  if (state_.rules.has_windows) {  // other samples fork where the leader's windows still reach
    for (const Sample& other : request.samples) {
      if (&other != &leader && !other.is_finished()) most = std::min(most, other.fork_length);
    }
  }
  return most;
}

/// Tokens of its registered prefix that it can fork; 0 when that is not computed.
std::uint32_t Draft::pinned_tokens(const Request& request, std::uint32_t most) const noexcept {
  const PinnedPrefix* prefix = request.prefix_used;
  if (prefix == nullptr || raw(prefix->sequence) == 0) return 0;
  const auto size = static_cast<std::uint32_t>(prefix->tokens.size());
  if (state_.rules.has_windows && most < size) return 0;  // its windows have passed that
  return std::min(size, most);
}

/// Whether it waits for what a store has of its prompt beyond the `has` tokens found in the cache, asking for that when
/// there is room to compute the request: what was read before would be evicted again. For less than a block it does not
/// wait, nor twice.
bool Draft::waits_for_store(const Candidate& candidate, std::uint32_t has, std::uint32_t most) {
  const Request& request = candidate.request;
  const RequestProgress& progress = request.progress;
  if (progress.stored == 0) return false;
  if (progress.reads_store) return true;
  if (std::min(progress.stored, most) < has + state_.rules.block_size) return false;
  if (pinned_tokens(request, most) >= progress.stored) return false;
  const std::uint64_t needs = promised_ + state_.blocks_after_start(request, request.leader(), has);
  if (!candidate.alone && needs + state_.rules.watermark_blocks > scratch_->available()) return false;
  decisions_.store_reads.push_back(&request);
  return true;
}

/// Starts one. The whole prompt must fit, not only its first chunk, above what running requests were promised and above
/// the watermark; else prompts that were admitted together would preempt each other for ever. With nothing running the
/// head of the queue is always admitted: it fits alone. `waits` is set for one whose prefix is being computed.
bool Draft::start(const Candidate& candidate, bool& waits) {
  const Request& request = candidate.request;
  const std::uint32_t leader = request.leader();
  const Sample& sample = request.samples[leader];
  const std::uint32_t most = most_cached(request, sample);
  const bool shares = state_.rules.shares_prefixes && !request.limits.is_whole, is_new = sample.computed_before == 0;
  PrefixMatch match;
  if (most > 0 && (shares || !is_new))
    match = state_.cache.match_prefix(state_.tokens(request, sample), request.salt, most);
  const bool scores_all = request.progress.scores && most == 0;  // what is cached is of no use to it
  waits = (shares && most > 0 && has_prefix_underway(request, sample, match.num_tokens, most)) ||
          (request.prefix_used != nullptr && request.prefix_used->computing != nullptr && !scores_all) ||
          (shares && waits_for_store(candidate, match.num_tokens, most));
  if (waits) {
    promised_ += state_.blocks_after_start(request, leader, match.num_tokens);
    if (state_.rules.looks_ahead) foresee(outlook_, request, state_.blocks_saved(match));
    return true;
  }
  const std::uint32_t pinned = pinned_tokens(request, most);
  bool from_prefix = pinned > match.num_tokens;
  if (pinned > 0 && !from_prefix && !state_.rules.has_windows) {
    // The cache may know the prefix by other blocks than those that are pinned; then it would be held twice.
    const auto table = state_.cache.block_table(request.prefix_used->sequence);
    const auto shared = static_cast<std::ptrdiff_t>(pinned / state_.rules.block_size * state_.rules.num_layer_groups);
    from_prefix = !std::equal(table.begin(), table.begin() + shared, match.blocks.begin());
  }
  const KvGroup group{request.most_sequences(),
                      state_.cache.reservation(request.limits.prompt_size, request.limits.max_tokens)};
  return fit(candidate,
             {.request = &request,
              .work = decisions_.work.size(),
              .group = group,
              .match = std::move(match),
              .from_prefix = from_prefix},
             pinned);
}

/// Tries an admission as it is; alone also with less of its match, and with what those hold that wait in the swap
/// space.
bool Draft::fit(const Candidate& candidate, Admission&& admission, std::uint32_t pinned) {
  const Request& request = candidate.request;
  const std::uint32_t leader = request.leader(), size = request.target(request.samples[leader]);
  const std::uint32_t block_size = state_.rules.block_size, groups = state_.rules.num_layer_groups;
  PrefixMatch& match = admission.match;
  while (true) {
    const std::uint32_t first = admission.from_prefix ? pinned : match.num_tokens;
    const std::uint32_t rows = std::min(size - first, rows_left_);
    const std::uint64_t later = state_.blocks_after_start(request, leader, first + rows);
    const std::uint64_t spare = candidate.alone ? 0 : promised_ + later + state_.rules.watermark_blocks;
    const std::int64_t saved = admission.from_prefix ? first / block_size * groups : state_.blocks_saved(match);
    const bool fits = (candidate.alone || is_foreseen_to_fit(request, saved)) &&
                      (admission.from_prefix ? scratch_->fork(request.prefix_used->sequence, first, first + rows, spare)
                                             : scratch_->create(match, first + rows, spare, admission.group));
    if (fits) {
      const SequenceId sequence{state_.next.sequence + decisions_.admissions.size()};
      decisions_.admissions.push_back(std::move(admission));
      add_work(request, leader, sequence, first, rows);
      promised_ += later;
      if (state_.rules.looks_ahead) foresee(outlook_, request, saved);
      return true;
    }
    wanted_ = promised_ + state_.blocks_after_start(request, leader, first) + state_.rules.watermark_blocks;
    if (!candidate.alone) return false;
    // A match may take a block more than nothing, the one it copies from: do without. Then take from those who wait.
    if (const std::uint32_t partial = match.num_tokens % block_size;
        partial > 0 && !state_.rules.has_windows && !admission.from_prefix) {
      match.num_tokens -= partial;
      match.blocks.resize(match.blocks.size() - groups);
    } else if (match.num_tokens > 0 && !admission.from_prefix) {
      match = {};
    } else if (!discard_behind(request)) {
      return false;
    }
  }
}

}  // namespace pagedcore::sched
