// The beams of a search between two steps (section 4.4), as a draft: survivors keep their blocks, further children of
// the same parent are forked, dropped beams are freed.
#include <algorithm>

#include "base/text.hpp"
#include "pagedcore/error.hpp"
#include "scheduler/intake.hpp"

namespace pagedcore {

std::vector<std::uint32_t> place_beams(std::span<const BeamChild> children) {
  if (children.size() > kMostSamples)
    throw InvalidArgument(str(children.size(), " beams go on; a search has ", kMostSamples, " at most"));
  std::uint32_t places = static_cast<std::uint32_t>(children.size());
  for (const BeamChild& child : children) {
    if (child.parent >= kMostSamples)
      throw InvalidArgument(str("beam ", child.parent, " goes on; beams are counted from 0 to ", kMostSamples - 1));
    places = std::max(places, child.parent + 1);
  }
  std::vector<std::uint8_t> taken(places, 0);
  std::vector<std::uint32_t> place(children.size(), places);
  for (std::size_t i = 0; i < children.size(); ++i) {
    if (taken[children[i].parent]) continue;
    taken[children[i].parent] = 1;
    place[i] = children[i].parent;
  }
  std::uint32_t next = 0;
  for (std::uint32_t& at : place) {
    if (at != places) continue;
    while (taken[next]) ++next;
    taken[next] = 1;
    at = next;
  }
  return place;
}

namespace sched {

/// Every sampled search has one answer, whose children continue beams that were sampled.
void Intake::check_beams(const StepResult& result) const {
  const auto bad = [&](RequestId id, const std::string& why) {
    return InvalidArgument(str("step ", raw(state_.flight.step), ", beam search ", raw(id), ": ", why));
  };
  const std::vector<Work>& in_flight = state_.flight.work;
  std::vector<std::uint8_t> answered(result.beams.empty() ? 0 : in_flight.size());  // by the first work of a search
  for (const BeamResult& beam : result.beams) {
    const Request* request = state_.find(beam.request);
    if (request == nullptr) continue;  // aborted meanwhile
    if (!request->is_beam_search()) throw bad(beam.request, "the request samples, it has no beams");
    if (!is_sampled_now(*request)) continue;  // failed, or submitted anew
    if (answered[request->first_work]++) throw bad(beam.request, "its result comes twice");
    if (beam.children.size() > request->limits.beam_width) {
      throw bad(beam.request,
                str(beam.children.size(), " beams are to go on, but its width is ", request->limits.beam_width));
    }
    for (const BeamChild& child : beam.children) {
      if (child.token < 0) throw bad(beam.request, str("token ", child.token, " is negative"));
      if (child.parent >= request->samples.size() || request->samples[child.parent].is_finished()) {
        throw bad(beam.request, str("beam ", child.parent, " was not sampled"));
      }
      const std::uint32_t most = request->limits.prompt_size + request->limits.max_tokens;
      if (request->size(request->samples[child.parent]) + 1 >= most) {
        throw bad(beam.request,
                  str("it has ", request->limits.max_tokens, " tokens, its max_tokens, and cannot go on"));
      }
    }
  }
  for (std::size_t i = 0; i < in_flight.size(); ++i) {
    const Work& work = in_flight[i];
    if (work.request == nullptr || failed_[i] || !work.is_beam || work.num_samples == 0) continue;
    if (answered.empty() || !answered[work.request->first_work]) throw bad(work.request->id, "its result is missing");
  }
}

/// Whether its beams were sampled by the step in flight, and it has not failed.
bool Intake::is_sampled_now(const Request& request) const noexcept {
  const std::vector<Work>& in_flight = state_.flight.work;
  if (request.last_step != state_.flight.step) return false;
  for (std::size_t i = request.first_work; i < in_flight.size() && in_flight[i].request == &request; ++i) {
    if (in_flight[i].num_samples > 0) return !failed_[i];
  }
  return false;
}

void Intake::advance(const BeamResult& result) {
  const Request* request = state_.find(result.request);
  if (request == nullptr || !is_sampled_now(*request)) return;
  BeamStep step{request, result.children, place_beams(result.children), {}, {}};
  step.tokens.resize(result.children.size());
  step.sequences.resize(result.children.size());
  for (std::size_t i = 0; i < result.children.size(); ++i) {
    const BeamChild& child = result.children[i];
    if (step.places[i] == child.parent) continue;
    const Sample& parent = request->samples[child.parent];
    const std::uint32_t size = request->size(parent);
    step.tokens[i].reserve(parent.tokens.size() + std::max<std::size_t>(parent.tokens.size() / 2, 16));
    step.tokens[i] = parent.tokens;
    step.sequences[i] = fork(
        {.request = request, .sample = step.places[i], .parent = parent.sequence, .length = size, .is_beam = true});
  }
  beam_steps_.push_back(std::move(step));
}

}  // namespace sched
}  // namespace pagedcore
