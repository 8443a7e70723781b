#include <cmath>

#include "base/text.hpp"
#include "pagedcore/error.hpp"
#include "pagedcore/sampling.hpp"

namespace pagedcore {
namespace {

template <class T>
void require(bool ok, const char* name, T value, const char* limits) {
  if (!ok) throw InvalidArgument(str("sampling parameter ", name, " = ", value, " is out of range: ", limits));
}

void require_token(TokenId token, std::int32_t vocab_size, const char* name) {
  if (token < 0 || token >= vocab_size) {
    throw InvalidArgument(
        str("sampling parameter ", name, " names token ", token, ", but the vocabulary is [0, ", vocab_size, ")"));
  }
}

void require_tokens(const std::vector<TokenId>& tokens, std::int32_t vocab_size, const char* name) {
  for (const TokenId token : tokens) require_token(token, vocab_size, name);
}

}  // namespace

// Comparisons are written so that NaN fails them.
void validate(const SamplingParams& p, std::int32_t vocab_size) {
  require(p.n >= 1 && p.n <= 65536, "n", p.n, "it must lie in [1, 65536]");
  if (p.min_tokens > p.max_tokens) {
    throw InvalidArgument(
        str("sampling parameter min_tokens = ", p.min_tokens, " exceeds max_tokens = ", p.max_tokens));
  }
  require(p.temperature >= 0.0f && std::isfinite(p.temperature), "temperature", p.temperature,
          "it must be finite and at least 0 (0 is greedy)");
  require(p.top_k >= -1, "top_k", p.top_k, "it must be at least 1, or 0 or -1 to turn it off");
  require(p.top_p > 0.0f && p.top_p <= 1.0f, "top_p", p.top_p, "it must lie in (0, 1]; 1 turns it off");
  require(p.min_p >= 0.0f && p.min_p <= 1.0f, "min_p", p.min_p, "it must lie in [0, 1]; 0 turns it off");
  require(p.repetition_penalty > 0.0f && std::isfinite(p.repetition_penalty), "repetition_penalty",
          p.repetition_penalty, "it must be finite and above 0; 1 turns it off");
  require(p.presence_penalty >= -2.0f && p.presence_penalty <= 2.0f, "presence_penalty", p.presence_penalty,
          "it must lie in [-2, 2]; 0 turns it off");
  require(p.frequency_penalty >= -2.0f && p.frequency_penalty <= 2.0f, "frequency_penalty", p.frequency_penalty,
          "it must lie in [-2, 2]; 0 turns it off");
  require(p.logprobs >= -1 && p.logprobs <= vocab_size, "logprobs", p.logprobs,
          "it must lie in [0, vocabulary size], or be -1 to turn it off");
  require(p.prompt_logprobs >= -1 && p.prompt_logprobs <= vocab_size, "prompt_logprobs", p.prompt_logprobs,
          "it must lie in [0, vocabulary size], or be -1 to turn it off");
  for (const auto& [token, bias] : p.logit_bias) {
    require_token(token, vocab_size, "logit_bias");
    require(std::isfinite(bias) || bias < 0.0f, "logit_bias", bias, "a bias must be finite, or -inf to ban the token");
  }
  require_tokens(p.banned_tokens, vocab_size, "banned_tokens");
  require_tokens(p.allowed_tokens, vocab_size, "allowed_tokens");
  require_tokens(p.stop_token_ids, vocab_size, "stop_token_ids");
}

void validate(const BeamSearchParams& p, std::int32_t vocab_size) {
  require(p.width >= 1 && p.width <= 65536, "beam_width", p.width, "it must lie in [1, 65536]");
  require(p.n >= 1 && p.n <= p.width, "n", p.n, str("it must lie in [1, beam_width = ", p.width, "]").c_str());
  require(p.max_tokens >= 1, "max_tokens", p.max_tokens, "a beam search generates one token at least");
  require(std::isfinite(p.length_penalty), "length_penalty", p.length_penalty, "it must be finite");
  require_tokens(p.stop_token_ids, vocab_size, "stop_token_ids");
}

}  // namespace pagedcore
