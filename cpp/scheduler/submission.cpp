// The check of a submission: whether a request can be served at all.
#include <algorithm>
#include <cmath>
#include <limits>

#include "base/text.hpp"
#include "pagedcore/error.hpp"
#include "scheduler/state.hpp"

namespace pagedcore {

namespace {
constexpr std::uint32_t kMaxSamples = 65536;
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
  if (request.priority < -kMostPriority || request.priority > kMostPriority) {
    throw InvalidArgument(
        name() + str("priority is ", request.priority, "; it must be in [", -kMostPriority, ", ", kMostPriority, "]"));
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

}  // namespace pagedcore
