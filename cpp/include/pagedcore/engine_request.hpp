// What goes into an engine, and what comes out.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "pagedcore/constraint.hpp"
#include "pagedcore/embedding.hpp"
#include "pagedcore/fields.hpp"
#include "pagedcore/sampling.hpp"
#include "pagedcore/scheduler.hpp"
#include "pagedcore/step_plan.hpp"
#include "pagedcore/types.hpp"

namespace pagedcore {

/// What every kind of request may say besides its prompt and parameters.
struct RequestOptions {
  std::string prefix;
  std::uint64_t salt = 0;
  std::int32_t priority = 0;
  std::uint64_t tenant = 0;
  std::string request_id;
  double deadline = 0.0;

  template <class V>
  static void fields(V&& v) {
    using O = RequestOptions;
    v(field(
          "prefix", &O::prefix,
          "Name of a prefix that was registered under the same salt, or shared: the prompt begins with its tokens, and "
          "its KV is shared.")
          .zero_means("no prefix"));
    v(field("salt", &O::salt, "Requests with different salts never share cached prefixes."));
    v(field("priority", &O::priority, "With order priority: the higher goes first.",
            in(-kMostPriority, kMostPriority)));
    v(field("tenant", &O::tenant, "With order fair: who is served by it."));
    v(field("request_id", &O::request_id,
            "A name for the request, of 256 bytes at most, by which it can be aborted. No other that is open has it.")
          .zero_means("no name: the engine's number"));
    v(field("deadline", &O::deadline,
            "Seconds from submission after which the request ends with what it has, be it waiting or running; its "
            "finish reason is deadline.",
            above(0))
          .zero_means("no deadline"));
  }
};

struct EngineRequest {
  std::vector<TokenId> prompt;
  SamplingParams sampling;
  std::optional<BeamSearchParams> beam;      // beam search instead of sampling; `sampling` is then ignored
  std::optional<EmbeddingParams> embedding;  // of the prompt, instead of either
  RequestOptions options;
  std::shared_ptr<const Constraint> constraint;  // what its outputs are held to; null: nothing
  bool stream = false;  // deliver every token as it comes; otherwise each sample once, when it ends
  QueueId queue{};      // where its outputs go
};

/// When what became of a request, in seconds on the engine's clock (Engine::now); 0: not yet.
struct RequestTimes {
  double queued = 0.0;
  double scheduled = 0.0;
  double prefilled = 0.0;
  double first_token = 0.0;
  double last_token = 0.0;

  template <class V>
  static void fields(V&& v) {
    using T = RequestTimes;
    v(field("queued_time", &T::queued, "When it was submitted, on the engine's clock."));
    v(field("scheduled_time", &T::scheduled, "When the first step that computes something of it began; 0: not yet."));
    v(field("prefilled_time", &T::prefilled, "When its whole prompt had been computed."));
    v(field("first_token_time", &T::first_token, "When the sample's first token was there."));
    v(field("last_token_time", &T::last_token, "When its latest token was."));
  }
};

/// News of one sample. With stream, `tokens` are those since the last news of this sample, else all of them. News that
/// nobody has taken when the next of its sample comes is joined to that: what waits is bounded by the samples.
/// A beam search ends with one output for each hypothesis (there may be fewer than n), best first; `sample` counts
/// them. With stream, sample 0 grows on the way by what can no longer change: the tokens that the running beams and the
/// best hypothesis so far have in common.
struct EngineOutput {
  RequestId request{};
  std::uint32_t sample = 0;
  std::vector<TokenId> tokens;
  LogprobTable logprobs;
  LogprobTable prompt_logprobs;
  FinishReason finish = FinishReason::none;
  float score = 0.0f;
  std::string error;
  std::uint32_t cached_tokens = 0;
  double time = 0.0;
  RequestTimes times;
  bool last = false;
  std::vector<float> embedding;

  template <class V>
  static void fields(V&& v) {
    using O = EngineOutput;
    v(field("request", &O::request, ""));
    v(field("sample", &O::sample, ""));
    v(field("tokens", &O::tokens, "With stream, those since the last news of this sample, else all."));
    v(field("logprobs", &O::logprobs, "One per token, when asked for."));
    v(field("prompt_logprobs", &O::prompt_logprobs,
            "One per prompt token from prompt_logprob_start on, but none of the first; with the first news of sample "
            "0."));
    v(field("finish", &O::finish, ""));
    v(field("score", &O::score, "Of a hypothesis: its normalised sum of log-probabilities."));
    v(field("error", &O::error, "Why, when finish is error."));
    v(field("cached_tokens", &O::cached_tokens, "Prompt tokens taken from the prefix cache."));
    v(field("time", &O::time, "When it was told, in seconds on the engine's clock."));
    v(part("times", &O::times, "When what became of the request."));
    v(field("last", &O::last, "Nothing more will come for this request."));
    v(field("embedding", &O::embedding, "Of the prompt, when asked for; finish is then length."));
  }
};

}  // namespace pagedcore
