// Sampling: from a row of logits to a token. The same logits, parameters and key give the same token and the same bits
// of its log-probability on every machine and instruction set, whatever else runs.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "pagedcore/export.hpp"
#include "pagedcore/fields.hpp"
#include "pagedcore/types.hpp"

namespace pagedcore {

/// SamplingParams::max_tokens of a request that may go on to the end of its context, or of what the KV cache has for it
/// beside registered prefixes.
inline constexpr std::uint32_t kNoTokenLimit = kMostCount;

/// How the tokens of a request are chosen. The order of operations is the field's: penalties, logit bias, banned and
/// allowed tokens, temperature, min-p, top-k, top-p, then one draw.
struct SamplingParams {
  std::uint32_t n = 1;
  std::uint32_t max_tokens = 16;
  std::uint32_t min_tokens = 0;
  float temperature = 1.0f;
  std::int32_t top_k = 0;
  float top_p = 1.0f;
  float min_p = 0.0f;
  float repetition_penalty = 1.0f;
  float presence_penalty = 0.0f;
  float frequency_penalty = 0.0f;
  std::vector<std::pair<TokenId, float>> logit_bias;
  std::vector<TokenId> banned_tokens;
  std::vector<TokenId> allowed_token_ids;
  std::vector<TokenId> stop_token_ids;  // end-of-sequence tokens of the model are added by the caller unless ignored
  std::optional<std::int32_t> logprobs;
  std::optional<std::int32_t> prompt_logprobs;
  std::uint32_t prompt_logprob_start = 0;
  std::vector<TokenId> logprob_token_ids;
  std::uint64_t seed = 0;

  /// The list of fields: what each means, and its limits. The vocabulary's limits are checked by validate().
  template <class V>
  static void fields(V&& v) {
    using P = SamplingParams;
    v(field(
        "n", &P::n,
        "Independent samples of one prompt; its KV blocks are computed once and shared. More than max_sequences: the "
        "request runs alone, and its samples take turns.",
        in(1, kMostSamples)));
    v(field("max_tokens", &P::max_tokens, "Tokens generated, per sample. 0: compute (score) the prompt only.",
            in(0, kNoTokenLimit))
          .note("the most is no limit: as many as the context and the KV cache hold"));
    v(field("min_tokens", &P::min_tokens, "No stop token ends a sample before this many tokens.", in(0, kMostCount)));
    v(field("temperature", &P::temperature, "Divides the logits.", at_least(0)).note("0 is greedy"));
    v(field("top_k", &P::top_k, "Draw from this many most likely tokens.", in(-1, kMostCount))
          .note("0 or -1 turns it off"));
    v(field("top_p", &P::top_p, "Draw from the fewest most likely tokens that have this probability together.",
            above_up_to(0, 1))
          .note("1 turns it off"));
    v(field("min_p", &P::min_p, "Leave out tokens less likely than this share of the most likely one's probability.",
            in(0, 1))
          .note("0 turns it off"));
    v(field("repetition_penalty", &P::repetition_penalty,
            "Divides positive logits, and multiplies negative ones, of tokens in the prompt or the output.", above(0))
          .note("1 turns it off"));
    v(field("presence_penalty", &P::presence_penalty, "Subtracted from the logits of tokens in the output.", in(-2, 2))
          .note("0 turns it off"));
    v(field("frequency_penalty", &P::frequency_penalty,
            "Subtracted from the logits of tokens in the output, as often as they occur there.", in(-2, 2))
          .note("0 turns it off"));
    v(field("logit_bias", &P::logit_bias, "Added to the logits of these tokens; -inf bans one."));
    v(field("banned_tokens", &P::banned_tokens, "Never drawn.", at_least(0)));
    v(field("allowed_token_ids", &P::allowed_token_ids, "Nothing else is drawn. None: all tokens are allowed.",
            at_least(0)));
    v(field("stop_token_ids", &P::stop_token_ids, "End a sample, and belong to it.", at_least(0)));
    v(field(
        "logprobs", &P::logprobs,
        "Report each token's log-probability and those of this many most likely tokens; -1: of the whole vocabulary. "
        "None: none are reported.",
        at_least(-1)));
    v(field("prompt_logprobs", &P::prompt_logprobs, "Likewise for every token of the prompt but the first.",
            at_least(-1)));
    v(field(
          "prompt_logprob_start", &P::prompt_logprob_start,
          "With prompt_logprobs: the index of the first token that is scored. The KV of those before it may come from "
          "the prefix cache.",
          in(0, kMostCount))
          .note("0 and 1 score all but the first, which nothing predicts"));
    v(field("logprob_token_ids", &P::logprob_token_ids,
            "Tokens whose log-probabilities are reported too, at every position that is. Without logprobs they are "
            "reported of each output token, as with logprobs 0.",
            at_least(0)));
    v(field("seed", &P::seed, "The key of the random numbers: equal seeds draw alike."));
  }

  /// Whether log-probabilities are reported of output tokens.
  bool reports_logprobs() const noexcept { return logprobs.has_value() || !logprob_token_ids.empty(); }
  bool stops(TokenId token) const noexcept {
    for (const TokenId stop : stop_token_ids)
      if (stop == token) return true;
    return false;
  }
};

/// Throws InvalidArgument naming the first value out of range and its limits: those that need no model.
PAGEDCORE_API void validate(const SamplingParams& params);
/// The same, and for tokens the vocabulary.
PAGEDCORE_API void validate(const SamplingParams& params, std::int32_t vocab_size);

/// When a beam search of width k stops, given k finished hypotheses; the modes of transformers' `early_stopping`.
enum class EarlyStopping : std::uint8_t {
  heuristic,  // False: when no running beam, as long as it is now, could beat the worst of them
  immediate,  // True: at once
  never,      // "never": when no running beam could beat it at any length up to max_tokens
};
template <>
struct Words<EarlyStopping> {
  static constexpr Word<EarlyStopping> list[] = {{EarlyStopping::heuristic, "heuristic"},
                                                 {EarlyStopping::immediate, "immediate"},
                                                 {EarlyStopping::never, "never"}};
};

/// Beam search (PagedAttention, section 4.4), with the results of transformers' `generate`: a hypothesis scores the sum
/// of its tokens' log-probabilities divided by (its number of tokens) ^ length_penalty.
struct BeamSearchParams {
  std::uint32_t beam_width = 4;
  std::uint32_t n = 1;
  std::uint32_t max_tokens = 16;
  float length_penalty = 1.0f;
  EarlyStopping early_stopping = EarlyStopping::heuristic;
  std::vector<TokenId> stop_token_ids;

  template <class V>
  static void fields(V&& v) {
    using P = BeamSearchParams;
    v(field("beam_width", &P::beam_width, "Running beams.", in(1, kMostSamples)));
    v(field("n", &P::n, "Hypotheses to return, at most beam_width.", in(1, kMostSamples)));
    v(field("max_tokens", &P::max_tokens, "Tokens of a hypothesis.", in(1, kMostCount)));
    v(field("length_penalty", &P::length_penalty,
            "A hypothesis scores the sum of its log-probabilities divided by its length to this power."));
    v(field(
        "early_stopping", &P::early_stopping,
        "When the search ends, given beam_width finished hypotheses: at once (immediate), when no running beam could "
        "beat the worst of them as long as it is now (heuristic), or at any length (never)."));
    v(field("stop_token_ids", &P::stop_token_ids, "End a hypothesis, and belong to it.", at_least(0)));
  }
};
PAGEDCORE_API void validate(const BeamSearchParams& params);
PAGEDCORE_API void validate(const BeamSearchParams& params, std::int32_t vocab_size);

/// Log-probabilities at one position, of the model's own distribution (before penalties and temperature).
struct PositionLogprobs {
  TokenLogprob chosen;
  std::vector<TokenLogprob> top;

  template <class V>
  static void fields(V&& v) {
    using L = PositionLogprobs;
    v(field("chosen", &L::chosen, "The token that was drawn or scored."));
    v(field("top", &L::top,
            "The most likely tokens, best first, ties by token id, without those of probability 0; then those of "
            "logprob_token_ids, as they were named."));
  }
};

/// Log-probabilities at consecutive positions, in arrays that hold thousands of them, of whole vocabularies too.
struct PAGEDCORE_API LogprobTable {
  std::uint32_t width = 0;
  std::vector<TokenLogprob> chosen;
  std::vector<std::uint32_t> counts;
  std::vector<TokenLogprob> others;

  template <class V>
  static void fields(V&& v) {
    using L = LogprobTable;
    v(field("width", &L::width, "Tokens for which a position has room besides the one that was drawn or scored."));
    v(field("chosen", &L::chosen, "[positions] The token that was drawn or scored."));
    v(field("counts", &L::counts, "[positions] How many of the others are there."));
    v(field("others", &L::others, "[positions][width] As PositionLogprobs::top."));
  }

  LogprobTable() = default;
  LogprobTable(std::size_t positions, std::size_t width);

  std::size_t size() const noexcept { return chosen.size(); }
  bool empty() const noexcept { return chosen.empty(); }
  /// Throws InvalidArgument for more tokens than `width`, and std::bad_alloc; then nothing has changed.
  void set(std::size_t position, const PositionLogprobs& logprobs);
  /// One position more, of at most `most`. The first of an empty table decides its width.
  void append(const PositionLogprobs& logprobs, std::size_t most);
  /// The others at a position. Throws InvalidArgument for one beyond the end, and where the arrays contradict each
  /// other.
  std::span<const TokenLogprob> top(std::size_t position) const;
  /// One position as a value, and all of them.
  PositionLogprobs operator[](std::size_t position) const;
  std::vector<PositionLogprobs> positions() const;
  /// Bytes of so many positions.
  static std::uint64_t bytes(std::uint64_t positions, std::uint64_t width) noexcept {
    return positions * ((1 + width) * sizeof(TokenLogprob) + sizeof(std::uint32_t));
  }
};

/// A counter-based random number in [0, 1) with 53 bits: Philox4x32-10 (Salmon et al., SC 2011) keyed by the seed,
/// counter (sample index, position). Independent of every other request and of the order of calls.
PAGEDCORE_API double uniform(std::uint64_t seed, std::uint32_t sample, std::uint64_t position) noexcept;

/// What a draw depends on besides the logits.
struct SampleContext {
  const SamplingParams* params = nullptr;
  std::span<const TokenId> prompt;
  std::span<const TokenId> output;
  std::uint32_t sample = 0;  // index within the request; the position is prompt.size() + output.size()
};

struct SampleOutcome {
  TokenId token = -1;
  bool stop = false;
  PositionLogprobs logprobs;

  template <class V>
  static void fields(V&& v) {
    using O = SampleOutcome;
    v(field("token", &O::token, ""));
    v(field("stop", &O::stop, "The token is one of stop_token_ids."));
    v(field("logprobs", &O::logprobs, "Filled when the parameters ask for them."));
  }
};

/// Draws one token. `logits` is [vocab] and is not changed. Throws Corrupt when a logit is NaN or +inf or all are -inf,
/// and InvalidArgument when bans leave nothing to choose. Thread-safe: each thread keeps its own scratch.
PAGEDCORE_API SampleOutcome sample(std::span<const float> logits, const SampleContext& context);

/// Log-probabilities of `token` and of the `top` most likely tokens. Throws Corrupt on NaN, +inf, or
/// a row of nothing but -inf, and InvalidArgument when `token` is not in the row.
PAGEDCORE_API PositionLogprobs logprobs_of(std::span<const float> logits, TokenId token, std::int32_t top);

}  // namespace pagedcore
