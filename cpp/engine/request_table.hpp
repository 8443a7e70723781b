// What the engine knows of each live request beyond the scheduler's view: how to sample it, and what came out.
//
// A StepPlan stays plain data because of this table: it names requests, and whoever runs the plan finds the rest here.
// Every rank of a distributed executor would keep a table of its own. Engine thread only.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "pagedcore/engine.hpp"
#include "sampling/beam_search.hpp"

namespace pagedcore {

struct SampleState {
  std::vector<TokenId> output;
  std::vector<PositionLogprobs> logprobs;  // one per output token, when asked for; written by the executor
  std::size_t delivered = 0;               // output tokens that the caller was told of
  bool finished = false;
};

/// A beam search, and where its running beams are in the scheduler. Advanced by the executor.
struct BeamState {
  sampling::BeamSearch search;
  std::vector<std::uint32_t> places = {0};  // [running]: index of the beam within the scheduler's request
  std::size_t delivered = 0;                // tokens of the best hypothesis that the caller was told of
};

struct RequestState {
  RequestId id{};
  EngineRequest request;
  std::optional<BeamState> beams;                 // when the request is a beam search
  std::vector<SampleState> samples;               // [sampling.n], or one for each hypothesis
  std::uint32_t unfinished = 0;                   // of them
  std::vector<PositionLogprobs> prompt_logprobs;  // [prompt - first_scored], when asked for; written by the executor
  std::string error;                              // why the request failed; written by the executor
  std::uint32_t cached_tokens = 0;
  PrefixId pins{};         // not 0: the registered prefix that it computes
  bool scheduled = false;  // has been in a plan
  bool advanced = false;   // has gained a token since force_preemption last took it

  /// The first token of the prompt that is scored, when prompt_logprobs are asked for.
  std::size_t first_scored() const noexcept { return std::max(request.sampling.prompt_logprob_start, 1u); }
};

class RequestTable {
 public:
  /// Room for the request's outputs is made as they come. `id` must be new.
  RequestState& add(RequestId id, EngineRequest request);
  RequestState* find(RequestId id) noexcept;
  void erase(RequestId id) noexcept;
  std::size_t size() const noexcept { return requests_.size(); }
  /// Ids of all requests, ascending: the order of submission.
  std::vector<RequestId> ids() const;

 private:
  std::unordered_map<std::uint64_t, std::unique_ptr<RequestState>> requests_;
};

}  // namespace pagedcore
