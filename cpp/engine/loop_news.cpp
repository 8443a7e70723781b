// What the engine thread tells of requests as they go on: news of samples and of beam searches.
#include <utility>

#include "engine/engine_loop.hpp"
#include "engine/jump_ahead.hpp"

namespace pagedcore {

/// Puts the news of one sample among the outputs. Throws std::bad_alloc; then nothing has changed.
void EngineLoop::report(RequestState& request, std::uint32_t index, FinishReason finish) {
  if (finish != FinishReason::none) {
    finish_sample(request, index, finish, mailbox_.now(), outputs_);
    if (request.unfinished == 0) count_finish(finish);
    return;
  }
  SampleState& sample = request.samples[index];
  const std::size_t fresh = news_of(request, sample);
  News news(1);
  EngineOutput& output = news.front();
  output.request = request.id;
  output.sample = index;
  const auto first = sample.output.begin() + static_cast<std::ptrdiff_t>(sample.delivered);
  output.tokens.assign(first, first + static_cast<std::ptrdiff_t>(fresh));
  output.logprobs = std::exchange(sample.logprobs, {});
  sample.delivered += fresh;
  // Kept until the prompt is complete: the first token, or the end.
  if (index == 0) output.prompt_logprobs = std::exchange(request.prompt_logprobs, {});
  output.cached_tokens = request.cached_tokens;
  output.time = mailbox_.now();
  output.times = times_of(request, index);
  outputs_.splice(outputs_.end(), news);
}

/// What of the best hypothesis can no longer change, or, at the end, all hypotheses. Throws as report().
void EngineLoop::report_beams(RequestState& request, bool ended) {
  BeamState& beams = *request.beams;
  News news;
  const auto put = [&](std::uint32_t index, const std::vector<TokenId>& tokens) -> EngineOutput& {
    EngineOutput& output = news.emplace_back();
    output.request = request.id;
    output.sample = index;
    output.tokens.assign(tokens.begin() + static_cast<std::ptrdiff_t>(index == 0 ? beams.delivered : 0), tokens.end());
    output.cached_tokens = request.cached_tokens;
    output.time = mailbox_.now();
    output.times = request.times;
    return output;
  };
  if (!ended) {
    if (!request.request.stream) return;
    const std::vector<TokenId> stable = beams.search.stable();
    if (stable.size() == beams.delivered) return;
    put(0, stable);
    beams.delivered = stable.size();
    outputs_.splice(outputs_.end(), news);
    return;
  }
  const std::vector<sampling::BeamSearch::Hypothesis> hypotheses = beams.search.hypotheses();
  for (std::uint32_t i = 0; i < hypotheses.size(); ++i) {
    EngineOutput& output = put(i, hypotheses[i].tokens);
    output.score = hypotheses[i].score;
    output.finish = hypotheses[i].stopped ? FinishReason::stop : FinishReason::length;
    output.last = i + 1 == hypotheses.size();
  }
  count_finish(news.back().finish);
  outputs_.splice(outputs_.end(), news);
  request.unfinished = 0;
}

}  // namespace pagedcore
