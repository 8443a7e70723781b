// Sampling on the device: the same choices as cpp/sampling makes on the host, from the same random numbers.
//
// What is the same, bit for bit: the weights exp((logit - max) / temperature), their sums over blocks of 1024 tokens,
// the sum over those, the Philox stream, the running sum in which a draw is looked up (of all tokens, and of up to 1024
// that truncation leaves), penalties and bias. Sums in another order than the host's, in double: the mass that top-p
// compares with its target (the host's own order is that of its quickselect), and a draw among more than 1024 kept
// tokens. Where such a sum comes so close to its bound that the order could matter, the row is `undecided`.
//
// One block of threads works on one row. All arrays are device memory. Nothing is checked here but the row itself.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "pagedcore/types.hpp"

namespace pagedcore::cuda {

/// The largest vocabulary: a thousand and twenty-four blocks of weights.
inline constexpr std::int32_t kMaxVocab = 1024 * 1024;

/// Before temperature: penalties, then bias, then the mask.
struct ProcessTask {
  const float* logits = nullptr;    // [vocab]
  float* out = nullptr;             // [vocab]; may not be `logits`
  std::uint32_t* counts = nullptr;  // [vocab] of scratch, or none: no penalties
  const TokenId* prompt = nullptr;  // counted by the repetition penalty only
  const TokenId* output = nullptr;
  std::int32_t prompt_size = 0;
  std::int32_t output_size = 0;
  float repetition_penalty = 1.0f;
  float presence_penalty = 0.0f;
  float frequency_penalty = 0.0f;
  const TokenId* bias_tokens = nullptr;  // [num_bias], applied in order where a token occurs twice
  const float* bias = nullptr;
  std::int32_t num_bias = 0;
  const std::uint32_t* mask = nullptr;  // bit t % 32 of word t / 32: token t is allowed. A grammar's mask, allowed and
                                        // banned tokens, stop tokens that may not come yet; none: all are
};
cudaError_t launch_process_logits(const ProcessTask* tasks, std::int32_t count, std::int32_t vocab,
                                  cudaStream_t stream);

enum class RowStatus : std::int32_t {
  ok,
  corrupt,    // a logit is NaN or +inf, or all of the model's are -inf
  empty,      // masks and bias leave no token
  undecided,  // rounding could give another token than the host's
};

struct SampleTask {
  const float* logits = nullptr;        // [vocab], processed
  const float* model_logits = nullptr;  // [vocab] before processing, which are checked; may be `logits`
  TokenId* candidates = nullptr;        // [vocab] of scratch; needed where top_k, top_p or min_p truncate
  float scale = 1.0f;                   // 1 / temperature, finite; 0: greedy
  std::int32_t top_k = 0;               // 0: off
  float top_p = 1.0f;
  float min_p = 0.0f;
  std::uint64_t seed = 0;
  std::uint64_t position = 0;
  std::uint32_t sample = 0;
};
struct SampledToken {
  TokenId token = -1;  // -1 where the status is not ok
  RowStatus status = RowStatus::ok;
};
cudaError_t launch_sample(const SampleTask* tasks, SampledToken* results, std::int32_t count, std::int32_t vocab,
                          cudaStream_t stream);

struct DeviceLogprob {
  TokenId token = -1;
  float logprob = 0.0f;
  std::int32_t rank = 0;  // 1 is the most likely
};
/// How candidates are ordered; ties go to the smaller token.
enum class CandidateOrder : std::int32_t {
  logits,    // as logprobs_of
  logprobs,  // as beam_candidates, where rounding may make different logits equal
};
struct LogprobTask {
  const float* logits = nullptr;        // [vocab], the model's
  const SampledToken* token = nullptr;  // whose log-probability is wanted, or none
  TokenId* candidates = nullptr;        // [vocab] of scratch, where top > 0
  DeviceLogprob* chosen = nullptr;      // written where `token` is given
  DeviceLogprob* top = nullptr;         // [top], best first; the token is -1 past the last possible one
  std::int32_t num_top = 0;
  CandidateOrder order = CandidateOrder::logits;
  RowStatus* status = nullptr;
};
cudaError_t launch_logprobs(const LogprobTask* tasks, std::int32_t count, std::int32_t vocab, cudaStream_t stream);

}  // namespace pagedcore::cuda
