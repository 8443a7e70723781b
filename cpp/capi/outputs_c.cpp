#include <span>
#include <utility>

#include "base/text.hpp"
#include "capi/outputs.hpp"
#include "capi/status.hpp"
#include "pagedcore/error.hpp"

namespace {

using namespace pagedcore;

pc_token_logprob view_of(const TokenLogprob& t) { return {t.token, t.logprob, t.rank}; }

pc_finish view_of(FinishReason finish) {
  switch (finish) {
    case FinishReason::none:
      return PC_FINISH_NONE;
    case FinishReason::stop:
      return PC_FINISH_STOP;
    case FinishReason::length:
      return PC_FINISH_LENGTH;
    case FinishReason::abort:
      return PC_FINISH_ABORT;
    case FinishReason::deadline:
      return PC_FINISH_DEADLINE;
    case FinishReason::error:
      break;
  }
  return PC_FINISH_ERROR;
}

template <class F>
void for_each_position(const std::vector<EngineOutput>& outputs, const F& f) {
  for (const EngineOutput& output : outputs) {
    for (const LogprobTable* table : {&output.logprobs, &output.prompt_logprobs}) {
      for (std::size_t i = 0; i < table->size(); ++i) f(table->chosen[i], table->top(i));
    }
  }
}

}  // namespace

pc_outputs::pc_outputs(std::vector<EngineOutput> taken) : outputs(std::move(taken)) {
  // Reserved in full first: the views point into these arrays.
  std::size_t num_positions = 0, num_tops = 0;
  for_each_position(outputs, [&](const TokenLogprob&, std::span<const TokenLogprob> top) {
    ++num_positions, num_tops += top.size();
  });
  tops.reserve(num_tops);
  positions.reserve(num_positions);
  views.reserve(outputs.size());
  for_each_position(outputs, [&](const TokenLogprob& chosen, std::span<const TokenLogprob> top) {
    positions.push_back({view_of(chosen), tops.data() + tops.size(), top.size()});
    for (const TokenLogprob& t : top) tops.push_back(view_of(t));
  });

  const pc_position_logprobs* next = positions.data();
  for (const EngineOutput& o : outputs) {
    pc_output& view = views.emplace_back();
    view.struct_size = sizeof view;
    view.request = raw(o.request);
    view.sample = o.sample;
    view.cached_tokens = o.cached_tokens;
    view.tokens = o.tokens.data();
    view.num_tokens = o.tokens.size();
    view.logprobs = next;
    view.num_logprobs = o.logprobs.size();
    next += o.logprobs.size();
    view.prompt_logprobs = next;
    view.num_prompt_logprobs = o.prompt_logprobs.size();
    next += o.prompt_logprobs.size();
    view.error = o.error.c_str();
    view.time = o.time;
    view.finish = view_of(o.finish);
    view.last = o.last ? 1 : 0;
    view.score = o.score;
    view.queued_time = o.times.queued;
    view.scheduled_time = o.times.scheduled;
    view.prefilled_time = o.times.prefilled;
    view.first_token_time = o.times.first_token;
    view.last_token_time = o.times.last_token;
  }
}

size_t pc_outputs_count(const pc_outputs* outputs) noexcept { return outputs == nullptr ? 0 : outputs->views.size(); }

const pc_output* pc_outputs_get(const pc_outputs* outputs, size_t index) noexcept {
  return index < pc_outputs_count(outputs) ? &outputs->views[index] : nullptr;
}

pc_status pc_outputs_embedding(const pc_outputs* outputs, size_t index, const float** numbers,
                               size_t* dimensions) noexcept {
  return capi::guarded([&] {
    capi::require(outputs, "outputs");
    capi::require(numbers, "numbers");
    capi::require(dimensions, "dimensions");
    if (index >= outputs->outputs.size())
      throw InvalidArgument(str("argument 'index' is ", index, "; there are ", outputs->outputs.size(), " outputs"));
    const std::vector<float>& embedding = outputs->outputs[index].embedding;
    *numbers = embedding.data();
    *dimensions = embedding.size();
  });
}

void pc_outputs_free(pc_outputs* outputs) noexcept { delete outputs; }
