#include "engine/jump_ahead.hpp"

#include <algorithm>
#include <functional>
#include <span>

#include "base/grow_capacity.hpp"

namespace pagedcore {

std::size_t news_of(const RequestState& request, const SampleState& sample) noexcept {
  const std::size_t fresh = sample.output.size() - sample.delivered;
  return request.request.sampling.reports_logprobs() ? std::min(fresh, sample.logprobs.size()) : fresh;
}

UnscoredRows unscored_rows(const ScheduledSequence& s, const RequestState& request) {
  if (!request.request.constraint || request.beams || !request.request.sampling.reports_logprobs()) return {};
  const SampleState& sample = request.samples.at(s.first_sample);
  const std::size_t prompt = request.request.prompt.size(), scored = sample.delivered + sample.logprobs.size();
  // Row p predicts the token at p + 1; of the last token's row one is drawn.
  const std::size_t begin = std::max<std::size_t>(prompt + scored - 1, s.first_position);
  const std::size_t end = std::min<std::size_t>(prompt + sample.output.size() - 1, s.first_position + s.num_rows);
  if (begin >= end) return {};
  return {static_cast<std::uint32_t>(begin - s.first_position), static_cast<std::uint32_t>(end - s.first_position),
          static_cast<std::int64_t>(begin + 1 - prompt)};
}

void look_ahead(std::vector<RowTask>& tasks, std::size_t vocab_size, Backend& backend, std::vector<RowTask*>& drawing) {
  drawing.clear();
  grow_capacity(drawing, tasks.size());
  for (RowTask& task : tasks) {
    if (task.matcher == nullptr || task.request->beams || !task.request->error.empty()) continue;
    task.matcher->take(task.outcome.token);
    const std::size_t known = task.request->samples[task.sample].output.size() + 1;
    if (!task.outcome.stop && known < task.request->max_tokens) drawing.push_back(&task);
  }
  const auto follow = [&](std::int64_t i) {
    const RowTask& task = *drawing[static_cast<std::size_t>(i)];
    const std::size_t known = task.request->samples[task.sample].output.size() + 1;
    const std::size_t most = std::min<std::size_t>(kLongestRun, task.request->max_tokens - known - 1);
    task.matcher->look_ahead(vocab_size, task.request->request.sampling, most);
  };
  try {
    backend.host_parallel(static_cast<std::int64_t>(drawing.size()), std::ref(follow));
  } catch (const std::exception&) {  // masks that are not there are asked for with the next draw
  }
}

void jump(RequestState& request, std::uint32_t index, Scheduler& scheduler, std::optional<TraceWriter>& trace) {
  SampleState& sample = request.samples[index];
  const std::span<const TokenId> run = sample.matcher.run();
  if (run.empty()) return;
  grow_capacity(sample.output, sample.output.size() + run.size());
  const bool scored = request.request.sampling.reports_logprobs();
  const std::uint32_t taken = scheduler.extend(request.id, index, run, scored);
  if (taken == 0) return;
  if (trace) trace->extend(request.id, index, run.first(taken), scored);
  sample.output.insert(sample.output.end(), run.begin(), run.begin() + taken);
  for (std::uint32_t i = 0; i < taken; ++i) sample.matcher.take(sample.output[sample.output.size() - taken + i]);
}

}  // namespace pagedcore
