// Sampling: from a row of logits to a token. The same logits, parameters and key give the same token and the same bits
// of its log-probability on every machine and instruction set, whatever else runs.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "pagedcore/export.hpp"
#include "pagedcore/types.hpp"

namespace pagedcore {

/// How the tokens of a request are chosen. The order of operations is the field's: penalties, logit bias, banned and
/// allowed tokens, temperature, min-p, top-k, top-p, then one draw.
struct SamplingParams {
  std::uint32_t n = 1;              // independent samples, in [1, 65536]
  std::uint32_t max_tokens = 16;    // per sample; 0 only scores the prompt
  std::uint32_t min_tokens = 0;     // stop tokens are impossible before this many tokens
  float temperature = 1.0f;         // >= 0; 0 is greedy
  std::int32_t top_k = 0;           // 0 or -1: off
  float top_p = 1.0f;               // (0, 1]
  float min_p = 0.0f;               // [0, 1]
  float repetition_penalty = 1.0f;  // > 0; over prompt and output
  float presence_penalty = 0.0f;    // [-2, 2]; over output
  float frequency_penalty = 0.0f;   // [-2, 2]; over output
  std::vector<std::pair<TokenId, float>> logit_bias;
  std::vector<TokenId> banned_tokens;
  std::vector<TokenId> allowed_tokens;  // empty: all
  std::vector<TokenId> stop_token_ids;  // end-of-sequence tokens of the model are added by the caller unless ignored
  std::int32_t logprobs = -1;  // >= 0: report the chosen token's log-probability and this many most likely tokens
  std::int32_t prompt_logprobs = -1;  // likewise for every prompt token but the first
  std::uint64_t seed = 0;

  bool stops(TokenId token) const noexcept {
    return std::find(stop_token_ids.begin(), stop_token_ids.end(), token) != stop_token_ids.end();
  }
};

/// Throws InvalidArgument naming the first value out of range, its limits, and (for tokens) the vocabulary.
PAGEDCORE_API void validate(const SamplingParams& params, std::int32_t vocab_size);

/// When a beam search of width k stops, given k finished hypotheses; the modes of transformers' `early_stopping`.
enum class EarlyStopping : std::uint8_t {
  heuristic,  // False: when no running beam, as long as it is now, could beat the worst of them
  immediate,  // True: at once
  never,      // "never": when no running beam could beat it at any length up to max_tokens
};

/// Beam search (PagedAttention, section 4.4), with the results of transformers' `generate`: a hypothesis scores the sum
/// of its tokens' log-probabilities divided by (its number of tokens) ^ length_penalty.
struct BeamSearchParams {
  std::uint32_t width = 4;        // running beams, in [1, 65536]
  std::uint32_t n = 1;            // hypotheses to return, in [1, width]
  std::uint32_t max_tokens = 16;  // >= 1
  float length_penalty = 1.0f;
  EarlyStopping early_stopping = EarlyStopping::heuristic;
  std::vector<TokenId> stop_token_ids;  // end a hypothesis, and belong to it
};
PAGEDCORE_API void validate(const BeamSearchParams& params, std::int32_t vocab_size);

/// Log-probabilities at one position, of the model's own distribution (before penalties and temperature).
struct PositionLogprobs {
  TokenLogprob chosen;
  std::vector<TokenLogprob> top;  // most likely first, ties by token id; tokens of probability 0 are left out
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
  bool stop = false;          // token is one of stop_token_ids
  PositionLogprobs logprobs;  // filled when params->logprobs >= 0
};

/// Draws one token. `logits` is [vocab] and is not changed. Throws Corrupt when a logit is NaN or +inf or all are -inf,
/// and InvalidArgument when bans leave nothing to choose. Thread-safe: each thread keeps its own scratch.
PAGEDCORE_API SampleOutcome sample(std::span<const float> logits, const SampleContext& context);

/// Log-probabilities of `token` and of the `top` most likely tokens. Throws Corrupt on NaN, +inf, or
/// a row of nothing but -inf, and InvalidArgument when `token` is not in the row.
PAGEDCORE_API PositionLogprobs logprobs_of(std::span<const float> logits, TokenId token, std::int32_t top);

}  // namespace pagedcore
