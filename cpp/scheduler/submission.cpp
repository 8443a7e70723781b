// What comes from outside: the checks, whether a request can be served at all among them, then its place in the queue.
// Everything that may throw comes before the first change.
#include <algorithm>
#include <cmath>
#include <limits>

#include "base/field_lists.hpp"
#include "base/grow_capacity.hpp"
#include "base/text.hpp"
#include "pagedcore/error.hpp"
#include "scheduler/state.hpp"

namespace pagedcore::sched {

namespace {

/// Id 0 is none yet: an engine gives ids to what it has accepted.
std::string name_of(const SchedulerRequest& request) {
  return raw(request.id) == 0 ? "" : str("request ", raw(request.id), ": ");
}

/// How many tokens a request must be able to generate.
std::uint32_t least_tokens(const SchedulerRequest& request) {
  return request.is_open_ended ? std::min(request.max_tokens, 1u) : request.max_tokens;
}

/// Tokens at the beginning of the prompt whose rows score nothing: a row scores the token behind its own.
std::uint32_t unscored(const SchedulerRequest& request) { return std::max(request.first_scored, 1u) - 1; }

}  // namespace

/// A request that passes can always finish when it is alone: full prompt blocks are shared by its samples, everything
/// behind them is each sample's own. That holds with copy-on-write too: a shared, partly filled block is counted once
/// for every sample that may come to own a copy of it.
void SchedulerState::validate(const SchedulerRequest& request) const {
  const auto name = [&] { return name_of(request); };
  if (request.prompt.empty()) throw InvalidArgument(name() + "the prompt is empty; it needs one token at least");
  if (const auto bad = std::ranges::find_if(request.prompt, [](TokenId token) { return token < 0; });
      bad != request.prompt.end()) {
    throw InvalidArgument(name() + str("token ", *bad, " at position ", bad - request.prompt.begin(),
                                       " of the prompt is negative; tokens are in [0, vocabulary)"));
  }
  check_ranges(request, raw(request.id) == 0 ? "request" : "request " + std::to_string(raw(request.id)) + ':');
  if (request.beam_width > 0) validate_beams(request);
  if (request.is_whole) validate_whole(request);

  const std::uint64_t prompt = request.prompt.size();
  if (request.first_scored >= std::max<std::uint64_t>(prompt, 2)) {
    throw InvalidArgument(name() + str("prompt_logprob_start is ", request.first_scored,
                                       ", but the tokens of the prompt are 0 to ", prompt - 1,
                                       "; start at one of them, or leave prompt_logprobs out"));
  }
  const std::uint64_t context = prompt + request.max_tokens;
  const std::uint64_t limit = config.max_context != 0 ? config.max_context : std::numeric_limits<std::uint32_t>::max();
  if (context > limit) {
    throw InvalidArgument(name() +
                          str("a prompt of ", prompt, " tokens and max_tokens = ", request.max_tokens, " make ",
                              context, ", but a sequence has at most ", limit, " (max_context); ",
                              prompt < limit ? str("lower max_tokens to ", limit - prompt, " or less, or ") : "",
                              "shorten the prompt"));
  }
  const std::uint32_t max_tokens = least_tokens(request), sequences = std::max(request.beam_width, request.num_samples);
  const std::string why = cache.why_never(sequences, static_cast<std::uint32_t>(prompt), max_tokens);
  if (!why.empty()) throw InvalidArgument(name() + why);
  const Need need = blocks_needed(prompt, max_tokens, sequences);
  if (need.total > cache_config.num_blocks) {
    throw InvalidArgument(name() + str("a prompt of ", prompt, " tokens and ", need.sequences, " x ", max_tokens,
                                       " generated ones need ", need.shared, " shared + ", need.sequences, " x ",
                                       need.own, " = ", need.shared + need.sequences * need.own, " KV blocks of ",
                                       rules.block_size, " tokens",
                                       rules.has_windows || rules.num_layer_groups > 1
                                           ? str(" in each of ", rules.num_layer_groups, " layer groups, ", need.total,
                                                 " in all where windows free some")
                                           : "",
                                       ", but the cache has ", cache_config.num_blocks, "; lower max_tokens or ",
                                       request.beam_width > 0 ? "beam_width" : "the number of samples",
                                       ", shorten the prompt, or enlarge the cache"));
  }
}

void SchedulerState::validate_whole(const SchedulerRequest& request) const {
  if (request.max_tokens > 0 || request.num_samples != 1 || request.prompt_logprobs || raw(request.prefix) != 0) {
    throw InvalidArgument(name_of(request) +
                          "its tokens see those behind them, so it can be computed once and whole: it takes no "
                          "max_tokens, samples, prompt_logprobs or prefix");
  }
  if (const std::size_t size = request.prompt.size(); size > config.max_batched_tokens) {
    throw InvalidArgument(name_of(request) + str("its ", size,
                                                 " tokens see each other, so they are computed in one step, "
                                                 "but a step has at most ",
                                                 config.max_batched_tokens, " (max_batched_tokens); raise that to ",
                                                 size, ", or shorten the text"));
  }
}

void SchedulerState::validate_beams(const SchedulerRequest& request) const {
  if (request.num_samples != 1 || request.prompt_logprobs || request.max_tokens == 0) {
    throw InvalidArgument(name_of(request) + str("a beam search of width ", request.beam_width,
                                                 " generates tokens, takes no samples and scores no prompt; submit a "
                                                 "request of its own for num_samples, prompt_logprobs or max_tokens = "
                                                 "0"));
  }
  const std::uint32_t most = std::min(config.max_sequences, config.max_batched_tokens);
  if (request.beam_width > most) {
    throw InvalidArgument(name_of(request) + str("a beam search of width ", request.beam_width, " computes ",
                                                 request.beam_width, " sequences in one step, but a step has at most ",
                                                 most, " (the lower of max_sequences = ", config.max_sequences,
                                                 " and max_batched_tokens = ", config.max_batched_tokens,
                                                 "); lower the width, or raise that"));
  }
}

void SchedulerState::submit(SchedulerRequest spec) {
  validate(spec);
  const auto refuse = [&](const std::string& why) { throw InvalidArgument(name_of(spec) + why); };
  std::uint64_t shared_blocks = 0;  // with its prefix: counted there
  PinnedPrefix* prefix = nullptr;
  if (raw(spec.prefix) != 0) {
    prefix = prefixes.find(spec.prefix, spec.salt);
    if (prefix == nullptr) {
      refuse(str("prefix ", raw(spec.prefix), " is unknown; register_prefix() it, or name none"));
    }
    const auto common = std::ranges::mismatch(prefix->tokens, spec.prompt).in1 - prefix->tokens.begin();
    if (common < std::ssize(prefix->tokens)) {
      // Where the two part would tell the tokens of a shared one, one after the other, to whoever tries them.
      const std::string where =
          prefix->shared ? std::string() : str(" at token ", common, " of ", prefix->tokens.size());
      refuse(str("the prompt leaves prefix ", raw(spec.prefix), where, "; it must begin with all of its tokens"));
    }
    // What it shares with the prefix is counted there. It computes its last token and those whose rows score others.
    if (!rules.has_windows) {
      const std::size_t most = spec.prompt_logprobs ? unscored(spec) : spec.prompt.size() - 1;
      shared_blocks = std::min(prefix->tokens.size(), most) / rules.block_size * std::size_t{rules.num_layer_groups};
    }
  }
  const std::uint64_t least =
      blocks_needed(spec.prompt.size(), least_tokens(spec), std::max(spec.beam_width, spec.num_samples)).total -
      shared_blocks;
  if (least + prefixes.blocks() > cache_config.num_blocks) {
    refuse(str("it may need ", least, " KV blocks of its own, but registered prefixes keep ", prefixes.blocks(), " of ",
               cache_config.num_blocks, "; release one, lower max_tokens or enlarge the cache"));
  }
  Request& request = enqueue(std::move(spec));
  request.limits.own_blocks = request.limits.most_blocks - shared_blocks;
  fit_into(request, cache_config.num_blocks - prefixes.blocks());
  request.prefix_used = prefix;
  if (prefix != nullptr) ++prefix->users;
}

/// A new request that waits. It has passed every check but that of its id.
Request& SchedulerState::enqueue(SchedulerRequest spec) {
  if (find(spec.id) != nullptr) {
    throw InvalidArgument(
        str("request ", raw(spec.id), " is still being served; choose another id or abort() it first"));
  }
  const bool is_fair = config.order == ServiceOrder::fair;
  auto request = std::make_unique<Request>();
  request->id = spec.id;
  request->tenant = &waiting.tenant(is_fair ? spec.tenant : 0);
  request->key = {.turn = is_fair ? kNoTurn : 0,
                  .priority = config.order == ServiceOrder::priority ? spec.priority : 0,
                  .arrival = spec.arrival,
                  .order = next.order};
  request->limits = {.prompt_size = static_cast<std::uint32_t>(spec.prompt.size()),
                     .max_tokens = spec.max_tokens,
                     .beam_width = spec.beam_width,
                     .is_open_ended = spec.is_open_ended,
                     .is_whole = spec.is_whole,
                     .unscored = unscored(spec),
                     .most_blocks = blocks_needed(spec).total};
  // Without caching every request is a tenant of its own.
  request->salt = rules.shares_prefixes ? spec.salt : request->key.order;
  request->samples.resize(std::max(spec.num_samples, spec.beam_width));
  for (Sample& sample : request->samples) sample.fork_length = request->limits.prompt_size;
  for (std::uint32_t k = 1; k < spec.beam_width; ++k)
    request->samples[k].finish = FinishReason::stop;  // not in use yet
  request->prompt = std::move(spec.prompt);
  // With this they rarely need memory while they run.
  constexpr std::uint32_t kRoom = 256;
  if (spec.beam_width == 0) {
    for (Sample& sample : request->samples) sample.tokens.reserve(std::min(spec.max_tokens, kRoom));
  }
  request->unfinished = request->unstarted = spec.num_samples;
  request->progress.scores = spec.prompt_logprobs;
  request->progress.stored = spec.stored_tokens;
  forks.reserve(request->samples.size());
  Request& added = *request;
  requests[raw(spec.id)] = std::move(request);
  ++added.tenant->requests;
  waiting.insert(added);
  ++next.order;
  return added;
}

void SchedulerState::register_prefix(PrefixId id, SchedulerRequest spec, bool shared) {
  if (raw(id) == 0) throw InvalidArgument("prefix 0 means no prefix; choose another id");
  if (!cache.traits().shares) {
    throw InvalidArgument(str("prefix ", raw(id), ": a contiguous cache shares nothing; use paged allocation"));
  }
  if (prefixes.find(id) != nullptr) {
    throw InvalidArgument(str("prefix ", raw(id), " is registered; release it first or choose another id"));
  }
  spec.num_samples = 1;
  spec.beam_width = spec.max_tokens = 0;
  spec.is_open_ended = false;
  spec.prompt_logprobs = false;
  spec.first_scored = 0;
  spec.prefix = PrefixId{0};
  if (spec.is_whole)
    throw InvalidArgument(str("prefix ", raw(id), ": its tokens see those behind it: nothing can continue it"));
  validate(spec);
  auto prefix = std::make_unique<PinnedPrefix>();
  prefix->id = id;
  prefix->tokens = spec.prompt;
  prefix->salt = spec.salt;
  prefix->shared = shared;
  prefix->blocks = cache.footprint(spec.prompt.size());
  // While it is computed it may hold more, but then it is a request that can be preempted.
  std::uint64_t most = blocks_needed(spec).total - prefix->blocks;
  each_request([&](const Request& request) {
    most = std::max(most, request.limits.is_open_ended ? blocks_of_its_own(request, request.generated() + 1)
                                                       : request.limits.own_blocks);
  });
  const std::uint64_t all = prefixes.blocks() + prefix->blocks + most;
  if (all > cache_config.num_blocks) {
    throw InvalidArgument(str("prefix ", raw(id), ": its ", spec.prompt.size(), " tokens pin ", prefix->blocks,
                              " KV blocks; with ", prefixes.blocks(), " pinned by other prefixes and ", most,
                              " that a request already accepted may need that makes ", all, ", but the cache has ",
                              cache_config.num_blocks,
                              "; shorten it, release another, wait for requests to end, or enlarge the cache"));
  }
  spec.priority = kMostPriority + 1;  // whoever names it waits for it
  prefixes.reserve(cache_config.num_blocks);
  Request& request = enqueue(std::move(spec));
  request.limits.own_blocks = 0;  // counted as pinned
  request.prefix_computed = prefix.get();
  prefix->computing = &request;
  prefixes.add(std::move(prefix));
  each_request([&](Request& other) { fit_into(other, cache_config.num_blocks - prefixes.blocks()); });
}

void SchedulerState::release_prefix(PrefixId id) {
  PinnedPrefix* prefix = prefixes.find(id);
  if (prefix == nullptr)
    throw InvalidArgument(str("prefix ", raw(id), " is unknown; it was released, or never registered"));
  carry_out([&] {
    prefixes.release(*prefix);
    if (prefix->computing != nullptr) {
      remove(*prefix->computing);  // and the prefix with it
    } else {
      erase_if_unused(*prefix);
    }
  });
}

std::uint32_t SchedulerState::extend(RequestId id, std::uint32_t index, std::span<const TokenId> tokens, bool scored) {
  if (raw(flight.step) != 0)
    throw InvalidArgument(str("step ", raw(flight.step), " is outstanding; commit() its result before extending"));
  for (const TokenId token : tokens) {
    if (token < 0) throw InvalidArgument(str("request ", raw(id), ": token ", token, ": a token is never negative"));
  }
  Request* request = find(id);
  if (!config.jump_ahead || request == nullptr || request->is_beam_search() || index >= request->samples.size())
    return 0;
  Sample& sample = request->samples[index];
  const std::size_t drawn = sample.tokens.size();
  if (sample.is_finished() || drawn == 0 || drawn + 1 >= request->limits.max_tokens) return 0;
  const std::size_t count = std::min<std::size_t>(tokens.size(), request->limits.max_tokens - 1 - drawn);
  if (count == 0) return 0;
  const std::uint32_t known = request->size(sample);
  grow_capacity(sample.tokens, drawn + count);
  grow_capacity(joined, known + count);
  sample.tokens.insert(sample.tokens.end(), tokens.begin(), tokens.begin() + static_cast<std::ptrdiff_t>(count));
  if (scored) sample.most_shared = std::min(sample.most_shared, known - 1);
  request->tenant->served += config.output_weight * static_cast<double>(count);
  stats.tokens_sampled += count;
  stats.tokens_jumped += count;
  return static_cast<std::uint32_t>(count);
}

bool SchedulerState::force_preempt(RequestId id, PreemptionMode mode) {
  Request* request = find(id);
  if (request == nullptr || !request->running) return false;
  if (mode != PreemptionMode::recompute) {
    if (request->forced == Forced::none) request->forced = Forced::swap_in_next_plan;
    swaps_forced = true;
    return true;
  }
  preempted.reserve(preempted.size() + running.size());  // so that commit() need not allocate
  if (raw(flight.step) == 0) {
    carry_out([&] {
      preempted.push_back(id);
      preempt(*request);
    });
  } else {
    request->forced = Forced::recompute_after_commit;
    preempts_after_commit = true;
  }
  return true;
}

}  // namespace pagedcore::sched
