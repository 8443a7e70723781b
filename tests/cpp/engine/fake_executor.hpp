// An executor without a model: the next token is a hash of the tokens so far. It checks every plan against the request
// table, and lets a test interfere before each step.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "engine/engine_loop.hpp"
#include "pagedcore/error.hpp"

namespace fake {

using namespace pagedcore;

constexpr std::int32_t kVocab = 1000;
constexpr TokenId kStop = 999;  // drawn once in a while

inline TokenId next_token(const std::vector<TokenId>& prompt, const std::vector<TokenId>& output,
                          std::uint32_t sample) {
  std::uint64_t hash = 1469598103934665603ull + sample;
  const auto mix = [&](TokenId t) { hash = (hash ^ static_cast<std::uint64_t>(t)) * 1099511628211ull; };
  for (const TokenId t : prompt) mix(t);
  for (const TokenId t : output) mix(t);
  return static_cast<TokenId>((hash >> 20) % kVocab);
}

/// What the engine must deliver for a sample.
inline std::vector<TokenId> expected_output(const std::vector<TokenId>& prompt, std::uint32_t sample,
                                            std::uint32_t max_tokens) {
  std::vector<TokenId> output;
  while (output.size() < max_tokens) {
    output.push_back(next_token(prompt, output, sample));
    if (output.back() == kStop) break;
  }
  return output;
}

class FakeExecutor final : public Executor {
 public:
  /// Called before each step, on the engine thread; may throw, or name requests that fail in this step.
  using Hook = std::function<std::vector<RequestId>(const StepPlan& plan, std::uint64_t step)>;

  explicit FakeExecutor(RequestTable& requests, Hook hook = {}) : requests_(requests), hook_(std::move(hook)) {}

  StepResult run(const StepPlan& plan) override {
    StepResult result;
    result.step = plan.step;
    if (hook_) result.failed = hook_(plan, ++steps_);
    for (const ScheduledSequence& s : plan.sequences) {
      RequestState* request = requests_.find(s.request);
      if (request == nullptr) throw Corrupt("the plan names an unknown request");
      const auto& prompt = request->request.prompt;
      for (std::uint32_t i = 0; i < s.num_rows; ++i) {
        const std::size_t position = s.first_position + i;
        const TokenId known = position < prompt.size()
                                  ? prompt[position]
                                  : request->samples.at(s.first_sample).output.at(position - prompt.size());
        if (plan.tokens.at(s.first_row + i) != known) throw Corrupt("the plan's tokens are not the request's");
      }
      bool failed = false;
      for (const RequestId id : result.failed) failed = failed || id == s.request;
      if (failed) {
        request->error = "injected";
        continue;
      }
      for (std::uint32_t i = 0; i < s.num_samples; ++i) {
        const std::uint32_t sample = s.first_sample + i;
        const TokenId token = next_token(prompt, request->samples.at(sample).output, sample);
        result.tokens.push_back({s.sequence, sample, token, token == kStop});
      }
    }
    return result;
  }

 private:
  RequestTable& requests_;
  Hook hook_;
  std::uint64_t steps_ = 0;
};

struct LoopOptions {
  std::uint32_t num_blocks = 200;
  std::uint32_t max_batched_tokens = 64;
  std::uint32_t max_sequences = 32;
  std::uint32_t max_context = 200;
  std::uint32_t max_waiting = 0;
  FakeExecutor::Hook hook;
};

inline std::unique_ptr<EngineLoop> make_loop(const LoopOptions& o = {}) {
  auto requests = std::make_unique<RequestTable>();
  auto executor = std::make_unique<FakeExecutor>(*requests, o.hook);
  return std::make_unique<EngineLoop>(
      RequestLimits{.vocab_size = kVocab, .max_context = o.max_context, .max_waiting = o.max_waiting},
      Scheduler({o.max_batched_tokens, o.max_sequences, o.max_context, 0.01}, {o.num_blocks, 4, true}),
      std::move(requests), std::move(executor));
}

inline EngineRequest make_request(std::vector<TokenId> prompt, std::uint32_t max_tokens, std::uint32_t n = 1,
                                  bool stream = false) {
  EngineRequest request;
  request.prompt = std::move(prompt);
  request.sampling.max_tokens = max_tokens;
  request.sampling.n = n;
  request.sampling.stop_token_ids = {kStop};
  request.stream = stream;
  return request;
}

/// A prompt that differs from those of other seeds from the first token on.
inline std::vector<TokenId> make_prompt(std::size_t length, std::uint32_t seed) {
  std::vector<TokenId> prompt(length);
  for (std::size_t i = 0; i < length; ++i) prompt[i] = static_cast<TokenId>((seed * 31 + i * 7) % (kVocab - 1));
  return prompt;
}

/// Everything that came for one sample.
struct Collected {
  std::vector<TokenId> tokens;
  std::vector<PositionLogprobs> logprobs;
  FinishReason finish = FinishReason::none;
  std::string error;
  int news = 0;
};

struct Collection {
  std::map<std::pair<std::uint64_t, std::uint32_t>, Collected> samples;
  std::map<std::uint64_t, int> lasts;

  void add(const std::vector<EngineOutput>& outputs) {
    for (const EngineOutput& o : outputs) {
      Collected& c = samples[{raw(o.request), o.sample}];
      if (c.finish != FinishReason::none) throw Corrupt("news of a sample that had ended");
      c.tokens.insert(c.tokens.end(), o.tokens.begin(), o.tokens.end());
      for (std::size_t i = 0; i < o.logprobs.size(); ++i) c.logprobs.push_back(o.logprobs[i]);
      c.finish = o.finish;
      c.error = o.error;
      ++c.news;
      lasts[raw(o.request)] += o.last;
    }
  }
  const Collected& at(RequestId id, std::uint32_t sample = 0) const { return samples.at({raw(id), sample}); }
};

/// Drains an engine (or an EngineLoop) until nothing is open; throws when that takes longer than a minute.
template <class AnyEngine>
Collection drain(AnyEngine& engine) {
  Collection all;
  for (int i = 0; engine.busy(); ++i) {
    all.add(engine.wait(0.1));
    if (i > 100000) throw Corrupt("the engine does not come to an end");
  }
  return all;
}

}  // namespace fake
