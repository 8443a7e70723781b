#include "engine/request_table.hpp"

#include <algorithm>
#include <utility>

namespace pagedcore {

RequestState& RequestTable::add(RequestId id, EngineRequest request) {
  auto state = std::make_unique<RequestState>();
  state->id = id;
  state->request = std::move(request);
  const std::optional<BeamSearchParams>& beam = state->request.beam;
  if (beam) state->beams.emplace(BeamState{sampling::BeamSearch(*beam)});
  state->unfinished = beam ? beam->n : state->request.sampling.n;
  state->samples.resize(state->unfinished);
  if (!beam && state->request.sampling.prompt_logprobs.has_value())
    state->prompt_logprobs.resize(state->request.prompt.size() - state->first_scored());
  return *requests_.emplace(raw(id), std::move(state)).first->second;
}

RequestState* RequestTable::find(RequestId id) noexcept {
  const auto it = requests_.find(raw(id));
  return it == requests_.end() ? nullptr : it->second.get();
}

void RequestTable::erase(RequestId id) noexcept { requests_.erase(raw(id)); }

std::vector<RequestId> RequestTable::ids() const {
  std::vector<RequestId> ids;
  ids.reserve(requests_.size());
  for (const auto& [id, state] : requests_) ids.push_back(RequestId{id});
  std::sort(ids.begin(), ids.end());
  return ids;
}

}  // namespace pagedcore
