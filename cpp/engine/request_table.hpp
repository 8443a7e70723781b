// What the engine knows of each live request beyond the scheduler's view: how to sample it, and what came out.
//
// A StepPlan stays plain data because of this table: it names requests, and whoever runs the plan finds the rest here.
// Every rank of a distributed executor would keep a table of its own. Engine thread only.
#pragma once

#include <algorithm>
#include <cstdint>
#include <list>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "engine/pooled_rows.hpp"
#include "pagedcore/engine.hpp"
#include "sampling/beam_search.hpp"
#include "sampling/matcher.hpp"

namespace pagedcore {

class OutputQueue;

/// Outputs on their way to the callers. They move from list to list without an allocation.
using News = std::list<EngineOutput>;

struct SampleState {
  std::vector<TokenId> output;
  sampling::Matcher matcher;
  LogprobTable logprobs;      // of output tokens not yet delivered, when asked for; written by the executor
  std::size_t delivered = 0;  // output tokens that the caller was told of
  News last;                  // room for its last output, which must not fail for want of it
  bool finished = false;
  double first_token = 0.0, last_token = 0.0;  // when they came
};

/// A beam search, and where its running beams are in the scheduler. Advanced by the executor.
struct BeamState {
  sampling::BeamSearch search;
  std::vector<sampling::Matcher> matchers = {};  // [running]; none where nothing constrains them
  std::vector<std::uint32_t> places = {0};       // [running]: index of the beam within the scheduler's request
  std::size_t delivered = 0;                     // tokens of the best hypothesis that the caller was told of
};

struct RequestState {
  /// Takes the request, with room for its last outputs; that for the others is made as they come.
  explicit RequestState(EngineRequest request);

  RequestId id{};
  EngineRequest request;
  std::size_t bytes = 0;             // of host memory that it may come to hold
  std::uint32_t max_tokens = 0;      // of a sample, cut where the context ends
  std::optional<BeamState> beams;    // when the request is a beam search
  std::optional<PooledRows> pooled;  // when it asks for an embedding; written by the executor
  std::vector<float> embedding;      // likewise
  std::vector<SampleState> samples;  // [sampling.n], or one for each hypothesis
  std::uint32_t unfinished = 0;      // of them
  LogprobTable prompt_logprobs;      // [prompt - first_scored], when asked for; written by the executor
  std::string error;                 // why the request failed; written by the executor
  std::uint32_t cached_tokens = 0;
  RequestTimes times;                  // the tokens' only of a beam search: samples have their own
  double deadline = 0.0;               // on the engine's clock; 0: none
  std::shared_ptr<OutputQueue> queue;  // where its outputs go; the mailbox's
  PrefixId pins{};                     // not 0: the registered prefix that it computes
  bool scheduled = false;              // has been in a plan
  bool advanced = false;               // has gained a token since force_preemption last took it

  /// Of a sample, or of the beam at this place; null where nothing constrains it.
  sampling::Matcher* matcher(std::uint32_t index);
  /// The first token of the prompt that is scored, when prompt_logprobs are asked for.
  std::size_t first_scored() const noexcept { return std::max(request.sampling.prompt_logprob_start, 1u); }
};

/// Why a request ends that memory cannot be allocated for. Short enough to be kept without an allocation.
inline constexpr const char* kNoMemory = "out of memory";

/// Ends a sample: its last output, with what has not been delivered, is appended to `news`. What there is no memory for
/// is left out of an output that says error or abort; of another one std::bad_alloc is thrown, and nothing has changed.
void finish_sample(RequestState& request, std::uint32_t sample, FinishReason finish, double now, News& news);
/// What has been noted for news of this sample.
RequestTimes times_of(const RequestState& request, std::uint32_t sample) noexcept;

class RequestTable {
 public:
  /// The request's id must be new. Throws std::bad_alloc; then the request is still the caller's.
  RequestState& add(std::unique_ptr<RequestState>& request);
  RequestState* find(RequestId id) noexcept;
  /// The one that computes this prefix; null when there is none.
  RequestState* find_pinning(PrefixId prefix) noexcept;
  /// Some request; null when there is none.
  RequestState* any() noexcept { return requests_.empty() ? nullptr : requests_.begin()->second.get(); }
  /// The one that ends when there is no memory for a step: of those that may hold most, by orders of magnitude, the
  /// latest. Null when there is none.
  RequestState* largest() noexcept;
  /// The one whose deadline is the first to be over; null when none has one, or that is later than `now`.
  RequestState* overdue(double now) noexcept;
  std::optional<double> first_deadline() const noexcept;
  /// One whose outputs nobody will take; null when there is none.
  RequestState* orphan() noexcept;
  void erase(RequestId id) noexcept;
  std::size_t size() const noexcept { return requests_.size(); }
  /// Ids of all requests, ascending: the order of submission.
  std::vector<RequestId> ids() const;

 private:
  std::unordered_map<std::uint64_t, std::unique_ptr<RequestState>> requests_;
  std::set<std::pair<double, std::uint64_t>> deadlines_;  // of those that have one
};

}  // namespace pagedcore
