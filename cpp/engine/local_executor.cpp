#include "engine/local_executor.hpp"

#include <algorithm>
#include <exception>
#include <utility>

#include "base/text.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore {

LocalExecutor::LocalExecutor(Backend& backend, Model& model, KvStorage& kv, RequestTable& requests, SwapStore* swap)
    : backend_(backend), model_(model), kv_(kv), requests_(requests), swap_(swap) {}

SwapCounters LocalExecutor::swap_counters() const { return swap_ != nullptr ? swap_->counters() : SwapCounters{}; }

StepResult LocalExecutor::run(const StepPlan& plan) {
  list_tasks(plan);
  swap(plan);
  if (!plan.copies.empty()) backend_.copy_blocks(kv_, plan.copies);
  if (!plan.sequences.empty()) {
    const auto batch = backend_.prepare(describe(plan), kv_.shape().block_size);
    model_.forward({batch.get(), logit_rows_}, kv_,
                   [this](std::int64_t first, const Tensor& logits) { run_tasks(first, logits); });
  }
  backend_.synchronize();  // commit() lets blocks be reused that this step read
  return collect(plan);
}

/// Before anything is computed: what moves out makes room for the rest of the step.
void LocalExecutor::swap(const StepPlan& plan) {
  swap_failed_.clear();
  if (plan.swap_outs.empty() && plan.swap_ins.empty()) return;
  if (swap_ == nullptr) throw Corrupt(str("step ", raw(plan.step), " swaps, but there is no swap space"));
  failed_moves_.assign(plan.swap_outs.size(), 0);
  swap_->store(backend_, kv_, plan.swap_outs, failed_moves_);
  note_failures(plan.swapped_out);
  failed_moves_.assign(plan.swap_ins.size(), 0);
  swap_->load(backend_, kv_, plan.swap_ins, failed_moves_);
  note_failures(plan.swapped_in);
}

/// One lost block is enough: its request is recomputed.
void LocalExecutor::note_failures(const std::vector<SwappedRequest>& requests) {
  auto move = failed_moves_.begin();
  for (const SwappedRequest& swapped : requests) {
    const auto end = move + swapped.num_moves;
    if (std::find(move, end, 1) != end) swap_failed_.push_back(swapped.request);
    move = end;
  }
}

BatchView LocalExecutor::describe(const StepPlan& plan) {
  ranges_.clear();
  for (const ScheduledSequence& s : plan.sequences) {
    ranges_.push_back({static_cast<std::int32_t>(s.first_row), static_cast<std::int32_t>(s.num_rows),
                       static_cast<std::int32_t>(s.first_position), static_cast<std::int32_t>(s.table_offset)});
  }
  block_tables_.clear();
  for (const BlockId block : plan.block_tables) block_tables_.push_back(raw(block));
  const std::size_t groups = plan.table_entries > 0 ? plan.block_tables.size() / plan.table_entries : 1;
  return {plan.tokens, ranges_, block_tables_, static_cast<std::int32_t>(groups)};
}

void LocalExecutor::list_tasks(const StepPlan& plan) {
  tasks_.clear();
  logit_rows_.clear();
  for (const ScheduledSequence& s : plan.sequences) {
    RequestState* request = requests_.find(s.request);
    if (request == nullptr) throw Corrupt(str("step ", raw(plan.step), " schedules unknown request ", raw(s.request)));
    const auto want_row = [&](std::uint32_t row) {
      logit_rows_.push_back(static_cast<std::int32_t>(row));
      return static_cast<std::int64_t>(logit_rows_.size()) - 1;
    };
    for (std::uint32_t i = 0; i < s.num_scored; ++i) {
      tasks_.push_back(
          {request, s.sequence, 0, std::int64_t{s.first_position} + i, want_row(s.first_row + i), {}, {}, {}});
    }
    if (s.num_samples == 0) continue;
    const std::int64_t row = want_row(s.first_row + s.num_rows - 1);
    for (std::uint32_t i = 0; i < s.num_samples; ++i) {
      tasks_.push_back({request, s.sequence, s.first_sample + i, -1, row, {}, {}, {}});
    }
  }
}

void LocalExecutor::run_tasks(std::int64_t first_row, const Tensor& logits) {
  const auto below = [](const Task& task, std::int64_t row) { return task.logit_row < row; };
  const auto begin = std::lower_bound(tasks_.begin(), tasks_.end(), first_row, below);
  const auto end = std::lower_bound(begin, tasks_.end(), first_row + logits.rows, below);

  const auto* base = static_cast<const float*>(backend_.host_view(logits));
  std::int64_t stride = logits.stride;
  if (base == nullptr) {
    downloaded_.resize(static_cast<std::size_t>(logits.rows * logits.cols));
    backend_.download(std::as_writable_bytes(std::span(downloaded_)), logits);
    base = downloaded_.data();
    stride = logits.cols;
  } else {
    backend_.synchronize();
  }
  backend_.host_parallel(end - begin, [&](std::int64_t i) {
    Task& task = begin[i];
    run_task(task, {base + (task.logit_row - first_row) * stride, static_cast<std::size_t>(logits.cols)});
  });
}

/// On a backend thread. Writes to its own task only.
void LocalExecutor::run_task(Task& task, std::span<const float> logits) {
  const EngineRequest& request = task.request->request;
  try {
    if (task.position >= 0) {
      const TokenId next = request.prompt.at(static_cast<std::size_t>(task.position) + 1);
      task.outcome.logprobs = logprobs_of(logits, next, std::max(request.sampling.prompt_logprobs, 0));
    } else if (task.request->beams) {
      task.candidates = sampling::beam_candidates(logits, task.request->beams->search.candidates_per_beam());
    } else {
      const auto& output = task.request->samples.at(task.sample).output;
      task.outcome = sample(logits, {&request.sampling, request.prompt, output, task.sample});
    }
  } catch (const std::exception& error) {
    task.error = str(task.position >= 0 ? "scoring" : "sampling", " failed: ", error.what());
  }
}

StepResult LocalExecutor::collect(const StepPlan& plan) {
  StepResult result;
  result.step = plan.step;
  result.swap_failed = swap_failed_;
  for (Task& task : tasks_) {
    if (task.error.empty() || !task.request->error.empty()) continue;
    task.request->error = std::move(task.error);
    result.failed.push_back(task.request->id);
  }
  std::vector<Task*> beams;  // of one request
  for (std::size_t i = 0; i < tasks_.size(); ++i) {
    Task& task = tasks_[i];
    RequestState& request = *task.request;
    if (!request.error.empty()) continue;
    if (request.beams) {  // all beams of a search are sampled in one step, one behind the other
      beams.push_back(&task);
      if (i + 1 < tasks_.size() && tasks_[i + 1].request == &request) continue;
      result.beams.push_back(advance(request, beams));
      beams.clear();
      continue;
    }
    if (task.position >= 0) {
      request.prompt_logprobs.at(static_cast<std::size_t>(task.position)) = std::move(task.outcome.logprobs);
      continue;
    }
    result.tokens.push_back({task.sequence, task.sample, task.outcome.token, task.outcome.stop});
    if (request.request.sampling.logprobs >= 0) {
      request.samples[task.sample].logprobs.push_back(std::move(task.outcome.logprobs));
    }
  }
  return result;
}

BeamResult LocalExecutor::advance(RequestState& request, std::span<Task* const> tasks) {
  BeamState& beams = *request.beams;
  std::vector<std::vector<sampling::BeamCandidate>> candidates(beams.places.size());
  for (std::size_t i = 0; i < candidates.size(); ++i) {
    const auto task = std::ranges::find(tasks, beams.places[i], [](const Task* t) { return t->sample; });
    if (task == tasks.end()) throw Corrupt(str("beam ", beams.places[i], " is missing from its step"));
    candidates[i] = std::move((*task)->candidates);
  }
  BeamResult result{request.id, {}};
  for (const auto& child : beams.search.advance(candidates)) {
    result.children.push_back({beams.places[child.parent], child.token});
  }
  beams.places = place_beams(result.children);
  return result;
}

}  // namespace pagedcore
