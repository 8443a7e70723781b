// The sequences of a beam search between two steps (section 4.4): survivors keep their blocks, further children of the
// same parent are forked, dropped beams are freed.
#include <algorithm>

#include "base/text.hpp"
#include "pagedcore/error.hpp"
#include "scheduler/state.hpp"

namespace pagedcore {

using sched::Request;
using sched::Sample;

std::vector<std::uint32_t> place_beams(std::span<const BeamChild> children) {
  std::uint32_t places = static_cast<std::uint32_t>(children.size());
  for (const BeamChild& child : children) places = std::max(places, child.parent + 1);
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

/// Every sampled search has one answer, whose children continue beams that were sampled.
void Scheduler::Impl::check_beams(const StepResult& result) const {
  const auto bad = [&](RequestId id, const std::string& why) {
    return InvalidArgument(str("step ", raw(outstanding), ", beam search ", raw(id), ": ", why));
  };
  for (const BeamResult& beam : result.beams) {
    const Request* request = find(beam.request);
    if (request == nullptr) continue;  // aborted meanwhile
    if (!request->is_beam_search()) throw bad(beam.request, "the request samples, it has no beams");
    if (!is_sampled_now(*request)) continue;  // failed, or submitted anew
    if (std::ranges::count(result.beams, beam.request, &BeamResult::request) > 1) {
      throw bad(beam.request, "its result comes twice");
    }
    if (beam.children.size() > request->beam_width) {
      throw bad(beam.request, str(beam.children.size(), " beams are to go on, but its width is ", request->beam_width));
    }
    for (const BeamChild& child : beam.children) {
      if (child.token < 0) throw bad(beam.request, str("token ", child.token, " is negative"));
      if (child.parent >= request->samples.size() || request->samples[child.parent].is_finished()) {
        throw bad(beam.request, str("beam ", child.parent, " was not sampled"));
      }
      if (request->size(request->samples[child.parent]) + 1 >= request->prompt_size + request->max_tokens) {
        throw bad(beam.request, str("it has ", request->max_tokens, " tokens, its max_tokens, and cannot go on"));
      }
    }
  }
  for (std::size_t i = 0; i < in_flight.size(); ++i) {
    const sched::Work& work = in_flight[i];
    if (work.request == nullptr || failed[i] || !work.request->is_beam_search() || work.num_samples == 0) continue;
    if (std::ranges::count(result.beams, work.request->id, &BeamResult::request) == 0) {
      throw bad(work.request->id, "its result is missing");
    }
  }
}

/// Whether its beams were sampled by the step in flight, and it has not failed.
bool Scheduler::Impl::is_sampled_now(const Request& request) const noexcept {
  for (std::size_t i = 0; i < in_flight.size(); ++i) {
    if (in_flight[i].request == &request && in_flight[i].num_samples > 0) return !failed[i];
  }
  return false;
}

/// All that may fail: the forks, and room for every token. What a failure leaves is undone by the caller, from `forks`.
void Scheduler::Impl::prepare_beams(const BeamResult& result) {
  Request* request = find(result.request);
  if (request == nullptr || !is_sampled_now(*request)) return;
  BeamStep step{request, result.children, place_beams(result.children), {}, {}};
  step.tokens.resize(result.children.size());
  step.sequences.resize(result.children.size());
  beam_steps.reserve(beam_steps.size() + 1);
  for (std::size_t i = 0; i < result.children.size(); ++i) {
    const BeamChild& child = result.children[i];
    Sample& parent = request->samples[child.parent];
    const std::size_t size = request->size(parent);
    const std::size_t room = size + std::max<std::size_t>(size / 2, 16);
    if (step.places[i] == child.parent) {
      if (parent.tokens.capacity() < size + 1) parent.tokens.reserve(room);
      continue;
    }
    step.tokens[i].reserve(room);
    step.tokens[i] = parent.tokens;
    fork(*request, step.places[i], parent.sequence, static_cast<std::uint32_t>(size), true);
    step.sequences[i] = forks.back().sequence;
  }
  beam_steps.push_back(std::move(step));
}

/// Takes the children in. The forks were made; nothing here fails.
void Scheduler::Impl::advance_beams(BeamStep& step, std::vector<SampleUpdate>& updates) noexcept {
  Request& request = *step.request;
  const bool ends = step.children.empty();
  updates.push_back({.request = request.id, .finish = ends ? FinishReason::stop : FinishReason::none});
  stats.tokens_sampled += step.children.size();
  request.tenant->served += config.output_weight * static_cast<double>(step.children.size());
  request.sampled = true;
  if (ends) {
    remove(request);
    return;
  }
  // A parent's place is taken over by its first child or, if it has none, by the fork of another beam: then, and when
  // nobody takes it, its own blocks go.
  for (std::uint32_t place = 0; place < request.samples.size(); ++place) {
    Sample& beam = request.samples[place];
    if (beam.is_finished()) continue;
    const bool survives = std::ranges::any_of(step.children, [&](const BeamChild& c) { return c.parent == place; });
    if (survives) continue;
    finish_sample(request, place, FinishReason::stop);
  }
  for (std::size_t i = 0; i < step.children.size(); ++i) {
    const std::uint32_t place = step.places[i];
    Sample& beam = request.samples[place];
    if (place != step.children[i].parent) {
      beam.tokens.swap(step.tokens[i]);
      beam.sequence = step.sequences[i];
      beam.computed = static_cast<std::uint32_t>(beam.tokens.size());
      beam.computed_before = beam.computed;
      beam.started = true;
      beam.finish = FinishReason::none;
      ++request.unfinished;
    }
  }
  for (std::size_t i = 0; i < step.children.size(); ++i) {
    request.samples[step.places[i]].tokens.push_back(step.children[i].token);
  }
}

/// For every sample but the first unfinished one: from which other it forks, and at which length, when the group is
/// recomputed. Among the samples before it the one with which it has most tokens in common; the last token of a sample
/// is never shared, since its row is to be sampled.
void Scheduler::Impl::plan_forks(Request& request) noexcept {
  if (!request.sampled) return;  // as after submission: the leader computes the prompt for all
  for (std::uint32_t k = 0; k < request.samples.size(); ++k) {
    Sample& sample = request.samples[k];
    if (sample.is_finished()) continue;
    sample.fork_length = 0;
    for (std::uint32_t j = 0; j < k; ++j) {
      const Sample& other = request.samples[j];
      if (other.is_finished()) continue;
      const std::size_t most = std::min(sample.tokens.size(), other.tokens.size()) - 1;
      const auto end = sample.tokens.begin() + static_cast<std::ptrdiff_t>(most);
      const auto common = std::mismatch(sample.tokens.begin(), end, other.tokens.begin()).first - sample.tokens.begin();
      if (common <= sample.fork_length) continue;
      sample.fork_parent = j;
      sample.fork_length = static_cast<std::uint32_t>(common);
    }
  }
}

}  // namespace pagedcore
