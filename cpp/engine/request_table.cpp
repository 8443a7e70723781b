#include "engine/request_table.hpp"

#include <algorithm>
#include <bit>
#include <new>
#include <utility>

#include "engine/jump_ahead.hpp"
#include "engine/output_queue.hpp"

namespace pagedcore {

namespace {

constexpr std::uint32_t kRoom = 256;  // tokens for which a sample has room from the start

/// A text that is there whatever memory is left.
void set_text(std::string& text, const std::string& value) noexcept {
  try {
    text = value;
  } catch (const std::bad_alloc&) {
    text = kNoMemory;
  }
}

}  // namespace

RequestState::RequestState(EngineRequest given) : request(std::move(given)) {
  const std::optional<BeamSearchParams>& beam = request.beam;
  if (beam) beams.emplace(BeamState{.search = sampling::BeamSearch(*beam)});
  if (beam && request.constraint) beams->matchers.emplace_back(request.constraint);
  unfinished = beam ? beam->n : request.embedding ? 1 : request.sampling.n;
  samples.resize(unfinished);
  for (SampleState& sample : samples) {
    if (!beam && !request.embedding) {
      sample.output.reserve(std::min(request.sampling.max_tokens, kRoom));
      sample.matcher = sampling::Matcher(request.constraint);
    }
    sample.last.emplace_back();
  }
}

sampling::Matcher* RequestState::matcher(std::uint32_t index) {
  if (!request.constraint) return nullptr;
  if (!beams) return &samples.at(index).matcher;
  const auto place = std::ranges::find(beams->places, index) - beams->places.begin();
  return &beams->matchers.at(static_cast<std::size_t>(place));
}

void finish_sample(RequestState& request, std::uint32_t index, FinishReason finish, double now, News& news) {
  SampleState& sample = request.samples[index];
  EngineOutput& output = sample.last.front();
  const bool fails = finish == FinishReason::error || finish == FinishReason::abort || finish == FinishReason::deadline;
  try {
    sample.output.resize(sample.delivered + news_of(request, sample));  // what fails may not know of all of them enough
    if (sample.delivered == 0) {
      output.tokens.swap(sample.output);
    } else {
      output.tokens.assign(sample.output.begin() + static_cast<std::ptrdiff_t>(sample.delivered), sample.output.end());
    }
    output.logprobs = std::exchange(sample.logprobs, {});
  } catch (const std::bad_alloc&) {
    if (!fails) throw;
  }
  // Kept until the prompt is complete: the first token, or the end. What has failed has only a part.
  if (index == 0 && !fails) output.prompt_logprobs = std::exchange(request.prompt_logprobs, {});
  if (!fails) output.embedding = std::move(request.embedding);
  output.request = request.id;
  output.sample = index;
  output.cached_tokens = request.cached_tokens;
  output.time = now;
  output.times = times_of(request, index);
  output.finish = finish;
  if (finish == FinishReason::error) set_text(output.error, request.error.empty() ? kNoMemory : request.error);
  sample.matcher = sampling::Matcher();
  sample.finished = true;
  output.last = --request.unfinished == 0;
  news.splice(news.end(), sample.last);
}

RequestTimes times_of(const RequestState& request, std::uint32_t sample) noexcept {
  RequestTimes times = request.times;
  if (request.beams) return times;
  times.first_token = request.samples[sample].first_token;
  times.last_token = request.samples[sample].last_token;
  return times;
}

RequestState& RequestTable::add(std::unique_ptr<RequestState>& request) {
  const std::uint64_t id = raw(request->id);
  const double deadline = request->deadline;
  if (deadline > 0.0) deadlines_.emplace(deadline, id);
  try {
    std::unique_ptr<RequestState>& place = requests_[id];
    place = std::move(request);
    return *place;
  } catch (...) {
    deadlines_.erase({deadline, id});
    throw;
  }
}

RequestState* RequestTable::overdue(double now) noexcept {
  if (deadlines_.empty() || deadlines_.begin()->first > now) return nullptr;
  return requests_.at(deadlines_.begin()->second).get();
}

std::optional<double> RequestTable::first_deadline() const noexcept {
  return deadlines_.empty() ? std::nullopt : std::optional(deadlines_.begin()->first);
}

RequestState* RequestTable::orphan() noexcept {
  const auto found =
      std::ranges::find_if(requests_, [](const auto& entry) { return entry.second->queue->closed.load(); });
  return found == requests_.end() ? nullptr : found->second.get();
}

RequestState* RequestTable::find_pinning(PrefixId prefix) noexcept {
  const auto found = std::ranges::find_if(requests_, [&](const auto& entry) { return entry.second->pins == prefix; });
  return found == requests_.end() ? nullptr : found->second.get();
}

RequestState* RequestTable::largest() noexcept {
  RequestState* largest = nullptr;
  const auto order = [](const RequestState& r) { return std::pair(std::bit_width(r.bytes) / 4, raw(r.id)); };
  for (const auto& [id, request] : requests_) {
    if (largest == nullptr || order(*request) > order(*largest)) largest = request.get();
  }
  return largest;
}

RequestState* RequestTable::find(RequestId id) noexcept {
  const auto it = requests_.find(raw(id));
  return it == requests_.end() ? nullptr : it->second.get();
}

void RequestTable::erase(RequestId id) noexcept {
  const auto it = requests_.find(raw(id));
  if (it == requests_.end()) return;
  if (it->second->deadline > 0.0) deadlines_.erase({it->second->deadline, raw(id)});
  requests_.erase(it);
}

std::vector<RequestId> RequestTable::ids() const {
  std::vector<RequestId> ids;
  ids.reserve(requests_.size());
  for (const auto& [id, state] : requests_) ids.push_back(RequestId{id});
  std::sort(ids.begin(), ids.end());
  return ids;
}

}  // namespace pagedcore
