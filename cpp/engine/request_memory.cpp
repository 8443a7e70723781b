#include "engine/request_memory.hpp"

#include <algorithm>

#include "base/text.hpp"
#include "sampling/logprobs.hpp"

namespace pagedcore {
namespace {

// Measured by counting allocations (tests/cpp/engine/test_request_memory.cpp), and rounded up.
constexpr std::uint64_t kRequest = 4096;
constexpr std::uint64_t kSample = 1024;  // its state in scheduler and engine, its last output, its part of a step
// Copies of a token: the prompt's in engine and scheduler, and joined to an output; an output's in engine, scheduler
// and news, in vectors that grow by half.
constexpr std::uint64_t kPromptToken = 3 * sizeof(TokenId), kToken = 6 * sizeof(TokenId);
constexpr std::uint64_t kTableEntry = 3 * sizeof(BlockId);  // of a block: in its table, which grows by half, and a plan
constexpr std::uint64_t kGrowth = 2;                        // a table that grows: the old one beside the new one
constexpr std::uint64_t kScoredRows = 72;     // 64 whose scores wait for their place in the table, and their scratch
constexpr std::uint64_t kBeamNodes = 4 * 12;  // of a token of a beam, in the tree of histories, which doubles

}  // namespace

RequestBytes bytes_of(const EngineRequest& request, std::uint32_t max_tokens, std::int32_t vocab_size,
                      std::uint32_t blocks) {
  const SamplingParams& p = request.sampling;
  const auto vocab = static_cast<std::size_t>(vocab_size);
  const std::uint64_t prompt = request.prompt.size();
  RequestBytes bytes;
  bytes.fixed = kRequest + 2 * (request.options.prefix.size() + request.options.request_id.size());
  bytes.prompt = prompt * kPromptToken;
  bytes.samples = kSample + blocks * kTableEntry + (request.constraint ? request.constraint->bytes() + vocab / 4 : 0);
  bytes.tokens = max_tokens * kToken;
  if (request.beam) {
    bytes.num_samples = request.beam->beam_width;
    bytes.fixed += 2 * sizeof(TokenId) * request.beam->stop_token_ids.size();
    bytes.tokens += max_tokens * kBeamNodes;
    bytes.samples += 2 * sizeof(TokenLogprob) * (2 + request.beam->stop_token_ids.size()) * request.beam->beam_width;
    return bytes;
  }
  bytes.num_samples = 1;
  if (request.embedding) return bytes;
  bytes.num_samples = p.n;
  const std::uint64_t listed = p.banned_tokens.size() + p.allowed_token_ids.size() + p.stop_token_ids.size() +
                               p.logprob_token_ids.size() + 2 * p.logit_bias.size();
  bytes.fixed += 2 * sizeof(TokenId) * listed;
  const auto width = [&](std::optional<std::int32_t> count) {
    return static_cast<std::uint64_t>(sampling::num_top(count, vocab)) + p.logprob_token_ids.size();
  };
  if (p.reports_logprobs()) {
    const std::uint64_t waiting = request.constraint ? std::min<std::uint64_t>(max_tokens, kScoredRows) : 0;
    bytes.logprobs =
        kGrowth * LogprobTable::bytes(max_tokens, width(p.logprobs)) + LogprobTable::bytes(waiting, width(p.logprobs));
  }
  if (p.prompt_logprobs) {
    const std::uint64_t scored = prompt - std::min<std::uint64_t>(prompt, std::max(p.prompt_logprob_start, 1u));
    bytes.prompt_logprobs = LogprobTable::bytes(scored + std::min(scored, kScoredRows), width(p.prompt_logprobs));
  }
  return bytes;
}

std::string refusal(const RequestBytes& bytes, std::uint64_t limit) {
  const auto part = [](const char* what, std::uint64_t size) {
    return size > 0 ? str(" + ", size, " ", what) : std::string();
  };
  return str("the request may come to need ", bytes.total(), " bytes of host memory, but request_memory is ", limit,
             ": ", bytes.fixed + bytes.prompt, " for itself and its prompt + ", bytes.num_samples, " x (",
             bytes.samples, " for a sample", part("for its tokens", bytes.tokens),
             part("for their log-probabilities", bytes.logprobs), ")",
             part("for log-probabilities of the prompt", bytes.prompt_logprobs), "; lower ",
             bytes.prompt_logprobs > bytes.total() / 2                ? "prompt_logprobs, or raise prompt_logprob_start"
             : bytes.num_samples * bytes.logprobs > bytes.total() / 2 ? "logprobs or max_tokens"
             : bytes.num_samples > 1                                  ? "the number of samples, or max_tokens"
                                                                      : "max_tokens, or shorten the prompt",
             ", or raise request_memory");
}

}  // namespace pagedcore
