#include <cmath>

#include "base/field_lists.hpp"
#include "base/text.hpp"
#include "pagedcore/error.hpp"
#include "pagedcore/sampling.hpp"

namespace pagedcore {
namespace {

constexpr const char* kSampling = "sampling parameter";
constexpr const char* kBeams = "beam search parameter";
constexpr std::size_t kMostTokenIds = 1024;  // each costs a pass over the row, for its rank

void check_tokens(const char* what, const char* name, const std::vector<TokenId>& tokens, std::int32_t vocab_size) {
  for (const TokenId token : tokens) {
    if (token < 0 || token >= vocab_size)
      throw InvalidArgument(
          str(what, ' ', name, " names token ", token, ", but the vocabulary is [0, ", vocab_size, ")"));
  }
}

void check_count(const char* name, const std::optional<std::int32_t>& count, std::int32_t vocab_size) {
  if (count && *count > vocab_size)
    throw InvalidArgument(str(kSampling, ' ', name, " = ", *count, " is more than the vocabulary, ", vocab_size,
                              " tokens; -1 reports all of them"));
}

}  // namespace

void validate(const SamplingParams& p) {
  check_ranges(p, kSampling);
  if (p.min_tokens > p.max_tokens)
    throw InvalidArgument(
        str(kSampling, " min_tokens = ", p.min_tokens, " exceeds max_tokens = ", p.max_tokens, "; lower it"));
  if (p.prompt_logprob_start > 0 && !p.prompt_logprobs)
    throw InvalidArgument(str(kSampling, " prompt_logprob_start = ", p.prompt_logprob_start,
                              " says from where prompt_logprobs are wanted, and none are: set prompt_logprobs, 0 for "
                              "the prompt's own tokens"));
  if (p.logprob_token_ids.size() > kMostTokenIds)
    throw InvalidArgument(str(kSampling, " logprob_token_ids names ", p.logprob_token_ids.size(), " tokens; at most ",
                              kMostTokenIds, " are looked up one by one: logprobs = -1 reports the whole vocabulary"));
  for (const auto& [token, bias] : p.logit_bias) {
    if (!std::isfinite(bias) && !(bias < 0.0f))
      throw InvalidArgument(str(kSampling, " logit_bias of token ", token, " = ", bias,
                                " is out of range: it must be finite, or -inf to ban the token"));
  }
}

void validate(const SamplingParams& p, std::int32_t vocab_size) {
  validate(p);
  check_count("logprobs", p.logprobs, vocab_size);
  check_count("prompt_logprobs", p.prompt_logprobs, vocab_size);
  std::vector<TokenId> biased;
  for (const auto& [token, bias] : p.logit_bias) biased.push_back(token);
  check_tokens(kSampling, "logit_bias", biased, vocab_size);
  check_tokens(kSampling, "banned_tokens", p.banned_tokens, vocab_size);
  check_tokens(kSampling, "allowed_token_ids", p.allowed_token_ids, vocab_size);
  check_tokens(kSampling, "stop_token_ids", p.stop_token_ids, vocab_size);
  check_tokens(kSampling, "logprob_token_ids", p.logprob_token_ids, vocab_size);
}

void validate(const BeamSearchParams& p) {
  check_ranges(p, kBeams);
  if (p.n > p.beam_width)
    throw InvalidArgument(str(kBeams, " n = ", p.n, " is out of range: it must lie in [1, beam_width = ", p.beam_width,
                              "], the hypotheses that a search keeps"));
}

void validate(const BeamSearchParams& p, std::int32_t vocab_size) {
  validate(p);
  check_tokens(kBeams, "stop_token_ids", p.stop_token_ids, vocab_size);
}

}  // namespace pagedcore
