#include "sampling/logits_processors.hpp"

#include <algorithm>
#include <limits>

#include "base/text.hpp"
#include "pagedcore/error.hpp"
#include "sampling/row_kernels.hpp"

namespace pagedcore::sampling {

std::size_t index_of(TokenId token, std::size_t vocab_size) {
  if (token < 0 || static_cast<std::size_t>(token) >= vocab_size) {
    throw InvalidArgument(str("token ", token, " is not in the vocabulary [0, ", vocab_size, ")"));
  }
  return static_cast<std::size_t>(token);
}

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

/// A finite logit stays finite: one that overflows downwards is not banned. Of a banned token nothing changes.
float saturate(float x) {
  return std::clamp(x, std::numeric_limits<float>::lowest(), std::numeric_limits<float>::max());
}

/// How often each token occurs in the output, and whether it occurs at all. The table is as large as the vocabulary and
/// outlives the call, so only the entries that were touched are cleared, those of a call that throws too.
class Occurrences {
 public:
  Occurrences(const SampleContext& context, std::size_t vocab_size, bool with_prompt, Scratch& scratch)
      : Occurrences(scratch) {
    if (table_.size() < vocab_size) table_.resize(vocab_size);
    if (with_prompt) {
      for (const TokenId token : context.prompt) touch(index_of(token, vocab_size));
    }
    for (const TokenId token : context.output) ++touch(index_of(token, vocab_size));
  }
  ~Occurrences() {
    for (const std::size_t token : touched_) table_[token] = 0;
    touched_.clear();
  }
  Occurrences(const Occurrences&) = delete;
  Occurrences& operator=(const Occurrences&) = delete;

  /// f(token index, count in the output) for every token that occurs.
  template <class F>
  void for_each(const F& f) const {
    for (const std::size_t token : touched_) f(token, table_[token] & ~kSeen);
  }

 private:
  static constexpr std::uint32_t kSeen = 0x80000000u;

  explicit Occurrences(Scratch& scratch) noexcept : table_(scratch.occurrences), touched_(scratch.occurring) {}

  std::uint32_t& touch(std::size_t token) {
    std::uint32_t& entry = table_[token];
    if (entry == 0) {
      touched_.push_back(token);
      entry = kSeen;
    }
    return entry;
  }

  std::vector<std::uint32_t>& table_;
  std::vector<std::size_t>& touched_;
};

void apply_penalties(std::span<float> row, const SampleContext& context, Scratch& scratch) {
  const SamplingParams& p = *context.params;
  const bool repetition = p.repetition_penalty != 1.0f;
  if (!repetition && p.presence_penalty == 0.0f && p.frequency_penalty == 0.0f) return;
  const Occurrences occurrences(context, row.size(), repetition, scratch);
  occurrences.for_each([&](std::size_t token, std::uint32_t count) {
    float x = row[token];
    if (x == -kInfinity) return;
    if (repetition) x = x > 0.0f ? x / p.repetition_penalty : x * p.repetition_penalty;
    if (count > 0) x -= p.frequency_penalty * static_cast<float>(count) + p.presence_penalty;
    row[token] = saturate(x);
  });
}

void apply_bias(std::span<float> row, const SamplingParams& p) {
  for (const auto& [token, bias] : p.logit_bias) {
    float& x = row[index_of(token, row.size())];
    x = x == -kInfinity || bias == -kInfinity ? -kInfinity : saturate(x + bias);
  }
}

void ban(std::span<float> row, const std::vector<TokenId>& tokens) {
  for (const TokenId token : tokens) row[index_of(token, row.size())] = -kInfinity;
}

void keep_only(std::span<float> row, const std::vector<TokenId>& tokens) {
  std::vector<float> kept;
  kept.reserve(tokens.size());
  for (const TokenId token : tokens) kept.push_back(row[index_of(token, row.size())]);
  std::fill(row.begin(), row.end(), -kInfinity);
  for (std::size_t i = 0; i < tokens.size(); ++i) row[static_cast<std::size_t>(tokens[i])] = kept[i];
}

bool stops_too_early(const SampleContext& context) {
  return context.output.size() < context.params->min_tokens && !context.params->stop_token_ids.empty();
}

}  // namespace

void check_mask(TokenMask mask, std::size_t vocab_size) {
  if (const std::size_t words = (vocab_size + 31) / 32; mask.size() != words)
    throw InvalidArgument(str("a mask of ", mask.size(), " words; ", vocab_size, " tokens have ", words));
}

std::vector<std::uint32_t> token_mask(const SampleContext& context, std::size_t vocab_size, TokenMask given) {
  const SamplingParams& p = *context.params;
  const bool no_stop_yet = stops_too_early(context);
  if (given.empty() && p.allowed_token_ids.empty() && p.banned_tokens.empty() && !no_stop_yet) return {};
  std::vector<std::uint32_t> mask((vocab_size + 31) / 32, p.allowed_token_ids.empty() ? ~0u : 0u);
  const auto set = [&](const std::vector<TokenId>& tokens, bool allowed) {
    for (const TokenId token : tokens) {
      const std::size_t t = index_of(token, vocab_size);
      const std::uint32_t bit = 1u << t % 32;
      mask[t / 32] = allowed ? mask[t / 32] | bit : mask[t / 32] & ~bit;
    }
  };
  set(p.allowed_token_ids, true);
  set(p.banned_tokens, false);
  if (!given.empty()) {
    check_mask(given, vocab_size);
    for (std::size_t i = 0; i < mask.size(); ++i) mask[i] &= given[i];
  }
  if (!no_stop_yet) return mask;
  std::vector<std::uint32_t> whole;
  if (!given.empty()) whole = mask;
  set(p.stop_token_ids, false);
  const bool must_stop = !given.empty() && std::ranges::all_of(mask, [](std::uint32_t word) { return word == 0; });
  return must_stop ? whole : mask;
}

std::span<const float> process_logits(std::span<const float> logits, const SampleContext& context, Scratch& scratch,
                                      TokenMask given) {
  const SamplingParams& p = *context.params;
  const bool penalised = (p.repetition_penalty != 1.0f && context.prompt.size() + context.output.size() > 0) ||
                         ((p.presence_penalty != 0.0f || p.frequency_penalty != 0.0f) && !context.output.empty());
  const bool no_stop_yet = stops_too_early(context);
  if (!penalised && p.logit_bias.empty() && p.banned_tokens.empty() && p.allowed_token_ids.empty() && !no_stop_yet &&
      given.empty()) {
    return logits;
  }
  std::vector<float>& copy = scratch.row;
  if (!given.empty()) {
    std::vector<std::uint32_t> cut;  // where more than the constraint has a say
    if (no_stop_yet || !p.allowed_token_ids.empty() || !p.banned_tokens.empty()) {
      cut = token_mask(context, logits.size(), given);
      given = cut;
    } else {
      check_mask(given, logits.size());
    }
    std::span<const float> row = logits;
    if (penalised || !p.logit_bias.empty()) {
      copy.assign(logits.begin(), logits.end());
      if (penalised) apply_penalties(copy, context, scratch);
      apply_bias(copy, p);
      row = copy;
    }
    copy.resize(logits.size());
    keep_allowed(row, given, copy);
    return copy;
  }
  copy.assign(logits.begin(), logits.end());
  if (penalised) apply_penalties(copy, context, scratch);
  apply_bias(copy, p);
  if (!p.allowed_token_ids.empty()) keep_only(copy, p.allowed_token_ids);
  ban(copy, p.banned_tokens);
  if (no_stop_yet) ban(copy, p.stop_token_ids);
  return copy;
}

}  // namespace pagedcore::sampling
