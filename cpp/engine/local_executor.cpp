#include "engine/local_executor.hpp"

#include <algorithm>
#include <cmath>
#include <exception>
#include <functional>
#include <new>
#include <utility>

#include "base/text.hpp"
#include "engine/jump_ahead.hpp"
#include "pagedcore/error.hpp"
#include "sampling/logprobs.hpp"

namespace pagedcore {

LocalExecutor::LocalExecutor(Backend& backend, Model& model, KvStorage& kv, RequestTable& requests, SwapStore* swap,
                             RankGroup* ranks)
    : backend_(backend),
      model_(model),
      kv_(kv),
      requests_(requests),
      runner_(backend, model, kv, swap),
      ranks_(ranks) {}

SwapCounters LocalExecutor::swap_counters() const {
  if (runner_.swap_store() == nullptr) return {};
  SwapCounters counters = runner_.swap_store()->counters();
  if (ranks_ != nullptr) ranks_->add_to(counters);
  return counters;
}

StepResult LocalExecutor::run(const StepPlan& plan) {
  list_tasks(plan);
  const RankStep step{plan.step, plan.swap_outs, plan.swap_ins, plan.copies, describe(plan), logit_rows_, hidden_rows_};
  if (ranks_ == nullptr) {
    compute(step);
    lost_.assign(runner_.lost().begin(), runner_.lost().end());
  } else {
    compute_with_ranks(step);
  }
  swap_failed_.clear();
  note_failures(plan.swapped_out, 0);
  note_failures(plan.swapped_in, plan.swap_outs.size());
  StepResult result = collect(plan);
  look_ahead(tasks_, static_cast<std::size_t>(model_.description().vocab_size), backend_, drawing_);
  return result;
}

void LocalExecutor::compute(const RankStep& step) {
  runner_.run(
      step, [this](std::int64_t first, const Tensor& logits) { run_tasks(first, logits); },
      [this](std::int64_t first, const Tensor& hidden) { take_hidden(first, hidden); });
  make_embeddings();
  backend_.synchronize();  // commit() lets blocks be reused that this step read
}

/// What began a failure is told: at this rank it may show as a peer that is gone.
void LocalExecutor::compute_with_ranks(const RankStep& step) {
  ranks_->start(step);
  try {
    compute(step);
    lost_.assign(runner_.lost().begin(), runner_.lost().end());
    ranks_->finish(lost_);
  } catch (...) {
    const std::exception_ptr own = std::current_exception(), theirs = ranks_->give_up("rank 0 has given up its step");
    std::rethrow_exception(theirs != nullptr ? theirs : own);
  }
}

void LocalExecutor::host_parallel(std::int64_t count, const std::function<void(std::int64_t)>& body) {
  if (ranks_ == nullptr) return backend_.host_parallel(count, body);
  ranks_->host_parallel(backend_, count, body);
}

/// One lost block is enough: its request is recomputed.
void LocalExecutor::note_failures(const std::vector<SwappedRequest>& requests, std::size_t first_move) {
  auto move = lost_.begin() + static_cast<std::ptrdiff_t>(first_move);
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
  const std::size_t groups = plan.table_entries > 0 ? plan.block_tables.size() / plan.table_entries : 1;
  return {plan.tokens, ranges_, plan.block_tables, static_cast<std::int32_t>(groups)};
}

void LocalExecutor::list_tasks(const StepPlan& plan) {
  tasks_.clear();
  logit_rows_.clear();
  hidden_rows_.clear();
  pooled_.clear();
  for (const ScheduledSequence& s : plan.sequences) {
    RequestState* request = requests_.find(s.request);
    if (request == nullptr) continue;  // it has ended for want of memory since the plan was made
    const std::size_t tasks = tasks_.size(), rows = logit_rows_.size();
    const std::size_t ranges = pooled_.size(), hidden = hidden_rows_.size();
    try {
      if (request->pooled) {
        list_pooled(s, *request);
      } else {
        list_tasks(s, *request);
      }
    } catch (const std::bad_alloc&) {
      tasks_.resize(tasks);
      logit_rows_.resize(rows);
      pooled_.resize(ranges);
      hidden_rows_.resize(hidden);
      request->error = kNoMemory;
    }
  }
}

void LocalExecutor::list_tasks(const ScheduledSequence& s, RequestState& request) {
  const auto want_row = [&](std::uint32_t row) {
    logit_rows_.push_back(static_cast<std::int32_t>(row));
    return static_cast<std::int64_t>(logit_rows_.size()) - 1;
  };
  const auto first_wanted = static_cast<std::uint32_t>(request.first_scored() - 1);
  std::uint32_t row = std::max(first_wanted, s.first_position) - s.first_position;
  if (row < s.num_scored && request.prompt_logprobs.empty()) {
    const SamplingParams& p = request.request.sampling;
    const auto width = sampling::num_top(p.prompt_logprobs, static_cast<std::size_t>(model_.description().vocab_size));
    request.prompt_logprobs = LogprobTable(request.request.prompt.size() - request.first_scored(),
                                           static_cast<std::size_t>(width) + p.logprob_token_ids.size());
  }
  for (; row < s.num_scored; ++row) {
    tasks_.push_back({.request = &request,
                      .sequence = s.sequence,
                      .position = std::int64_t{s.first_position} + row,
                      .logit_row = want_row(s.first_row + row)});
  }
  const UnscoredRows unscored = unscored_rows(s, request);
  for (std::uint32_t i = unscored.first; i < unscored.end; ++i) {
    tasks_.push_back({.request = &request,
                      .sequence = s.sequence,
                      .sample = s.first_sample,
                      .jumped = unscored.index + (i - unscored.first),
                      .logit_row = want_row(s.first_row + i)});
  }
  if (s.num_samples == 0) return;
  const std::int64_t last = want_row(s.first_row + s.num_rows - 1);
  for (std::uint32_t i = 0; i < s.num_samples; ++i) {
    const std::uint32_t sample = s.first_sample + i;
    tasks_.push_back({.request = &request,
                      .sequence = s.sequence,
                      .sample = sample,
                      .logit_row = last,
                      .matcher = request.matcher(sample)});
  }
}

/// Those of its rows that its embedding is made of: consecutive ones.
void LocalExecutor::list_pooled(const ScheduledSequence& s, RequestState& request) {
  PooledRange range{&request, 0, hidden_rows_.size(), 0};
  const PooledRows& rows = *request.pooled;
  for (std::uint32_t i = 0; i < s.num_rows; ++i) {
    if (!rows.wants(s.first_position + i, range.count)) continue;
    if (range.count++ == 0) range.position = s.first_position + i;
    hidden_rows_.push_back(static_cast<std::int32_t>(s.first_row + i));
  }
  pooled_.push_back(range);  // without rows too: a step that is run again may have taken them
}

void LocalExecutor::take_hidden(std::int64_t first, const Tensor& hidden) {
  const auto* base = static_cast<const float*>(backend_.host_view(hidden));
  std::int64_t stride = hidden.stride;
  if (base != nullptr) {
    backend_.synchronize();
  } else {
    downloaded_.resize(static_cast<std::size_t>(hidden.rows * hidden.cols));
    backend_.download(std::as_writable_bytes(std::span(downloaded_)), hidden);
    base = downloaded_.data();
    stride = hidden.cols;
  }
  const auto begin = static_cast<std::size_t>(first), end = begin + static_cast<std::size_t>(hidden.rows);
  host_parallel(static_cast<std::int64_t>(pooled_.size()), [&](std::int64_t index) {
    const PooledRange& range = pooled_[static_cast<std::size_t>(index)];
    const std::size_t last = std::min(range.first + range.count, end);
    for (std::size_t i = std::max(range.first, begin); i < last; ++i) {
      const float* row = base + static_cast<std::int64_t>(i - begin) * stride;
      range.request->pooled->add(range.position + i - range.first, {row, static_cast<std::size_t>(hidden.cols)});
    }
  });
}

/// Of the texts whose last rows came in this step, all together.
void LocalExecutor::make_embeddings() {
  std::vector<RequestState*> complete;
  std::vector<float> pooled;
  for (const PooledRange& range : pooled_) {
    if (!range.request->pooled->is_complete() || !range.request->embedding.empty()) continue;
    const std::vector<float> one = range.request->pooled->pooled();
    pooled.insert(pooled.end(), one.begin(), one.end());
    complete.push_back(range.request);
  }
  if (complete.empty()) return;
  const std::vector<float> made = model_.dense(std::move(pooled));
  const auto width = static_cast<std::ptrdiff_t>(made.size() / complete.size());
  for (std::size_t i = 0; i < complete.size(); ++i) {
    const auto begin = made.begin() + static_cast<std::ptrdiff_t>(i) * width;
    RequestState& request = *complete[i];
    if (!std::all_of(begin, begin + width, [](float x) { return std::isfinite(x); })) {
      request.error = "the embedding is not finite: the weights, or the compute type, give infinities for this text";
      continue;
    }
    request.embedding.assign(begin, begin + width);
    finish_embedding(request.embedding, *request.request.embedding);
  }
}

void LocalExecutor::run_tasks(std::int64_t first_row, const Tensor& logits) {
  const auto below = [](const RowTask& task, std::int64_t row) { return task.logit_row < row; };
  const auto begin = std::lower_bound(tasks_.begin(), tasks_.end(), first_row, below);
  const auto end = std::lower_bound(begin, tasks_.end(), first_row + logits.rows, below);
  const std::span<RowTask> tasks(begin, end);

  // Where the host can read the logits it samples; elsewhere the backend does, and the host what the backend leaves.
  std::vector<RowTask*> own;
  const auto* base = static_cast<const float*>(backend_.host_view(logits));
  std::int64_t stride = logits.stride;
  if (base != nullptr) {
    for (RowTask& task : tasks) own.push_back(&task);
    backend_.synchronize();
  } else {
    own = leave_to_backend(tasks, first_row, logits);
    base = download(own, first_row, logits);
    stride = logits.cols;
  }
  const auto run = [&](std::int64_t i) {
    RowTask& task = *own[static_cast<std::size_t>(i)];
    task.find_allowed(static_cast<std::size_t>(logits.cols));
    if (!task.error.empty()) return;
    try {
      auto scratch = scratch_.take();
      task.run({base + (task.logit_row - first_row) * stride, static_cast<std::size_t>(logits.cols)}, *scratch);
      scratch_.give(std::move(scratch), task.lacked_memory());
    } catch (const std::bad_alloc&) {
      task.error = kNoMemory;
    }
  };
  host_parallel(static_cast<std::int64_t>(own.size()), std::ref(run));
  // What lacked memory may have lacked a scratch that another request's task had: again, one by one.
  for (std::size_t i = 0; i < own.size(); ++i) {
    RowTask& task = *own[i];
    if (!task.lacked_memory() || !task.request->error.empty()) continue;
    task.error.clear(), run(static_cast<std::int64_t>(i));
    if (task.lacked_memory()) task.request->error = kNoMemory;  // and none of its others is tried
  }
  keep_scores(tasks);
}

/// Scores go to their places as they come: those of a whole step may be too much to hold twice.
void LocalExecutor::keep_scores(std::span<RowTask> tasks) {
  for (RowTask& task : tasks) {
    if (!task.scores() || !task.error.empty()) continue;
    RequestState& request = *task.request;
    if (task.jumped >= 0) {
      try {
        request.samples[task.sample].logprobs.append(task.outcome.logprobs, request.max_tokens);
      } catch (const std::bad_alloc&) {
        task.error = kNoMemory;
      }
      task.outcome.logprobs = {};
      continue;
    }
    request.prompt_logprobs.set(static_cast<std::size_t>(task.position) + 1 - request.first_scored(),
                                task.outcome.logprobs);
    task.outcome.logprobs = {};
  }
}

/// Returns the tasks that the backend has not done.
std::vector<RowTask*> LocalExecutor::leave_to_backend(std::span<RowTask> tasks, std::int64_t first_row,
                                                      const Tensor& logits) {
  const auto vocab_size = static_cast<std::size_t>(logits.cols);
  std::vector<RowTask*> constrained, offered, left;
  for (RowTask& task : tasks) {
    if (task.matcher != nullptr) constrained.push_back(&task);
  }
  // What the device computes meanwhile may not have ended.
  host_parallel(static_cast<std::int64_t>(constrained.size()),
                [&](std::int64_t i) { constrained[static_cast<std::size_t>(i)]->find_allowed(vocab_size); });
  for (RowTask& task : tasks) {
    if (task.error.empty()) (task.is_for_host() ? left : offered).push_back(&task);
  }
  backend_tasks_.clear();
  backend_results_.assign(offered.size(), {});
  if (masks_.size() < offered.size()) masks_.resize(offered.size());
  for (std::size_t i = 0; i < offered.size(); ++i)
    backend_tasks_.push_back(offered[i]->for_backend(offered[i]->logit_row - first_row, vocab_size, masks_[i]));
  backend_.sample_tokens(logits, backend_tasks_, backend_results_);
  for (std::size_t i = 0; i < offered.size(); ++i) {
    if (backend_results_[i].done) {
      offered[i]->take(std::move(backend_results_[i]));
    } else {
      left.push_back(offered[i]);
    }
  }
  std::ranges::sort(left);  // download() wants them in the order of their rows
  return left;
}

/// The logits of these tasks (in order of their rows), at the places of a [rows, cols] matrix; the rest of it is not
/// filled.
const float* LocalExecutor::download(std::span<RowTask* const> tasks, std::int64_t first_row, const Tensor& logits) {
  if (tasks.empty()) return nullptr;
  downloaded_.resize(static_cast<std::size_t>(logits.rows * logits.cols));
  for (std::size_t i = 0; i < tasks.size();) {
    const std::int64_t first = tasks[i]->logit_row - first_row;
    std::int64_t end = first;
    for (; i < tasks.size() && tasks[i]->logit_row - first_row <= end; ++i) end = tasks[i]->logit_row - first_row + 1;
    const auto place = std::span(downloaded_)
                           .subspan(static_cast<std::size_t>(first * logits.cols),
                                    static_cast<std::size_t>((end - first) * logits.cols));
    backend_.download(std::as_writable_bytes(place), logits.slice_rows(first, end - first));
  }
  return downloaded_.data();
}

StepResult LocalExecutor::collect(const StepPlan& plan) {
  StepResult result;
  result.step = plan.step;
  result.swap_failed = swap_failed_;
  // From here on only what a single request needs may fail.
  result.failed.reserve(plan.sequences.size());
  result.tokens.reserve(tasks_.size());
  result.beams.reserve(plan.sequences.size());
  std::vector<RowTask*> beams;  // of one request
  beams.reserve(plan.sequences.size());
  for (RowTask& task : tasks_) {
    if (!task.error.empty() && task.request->error.empty()) task.request->error.swap(task.error);
  }
  const auto fail = [&](RequestState& request) {
    if (request.error.empty()) request.error = kNoMemory;
  };
  for (std::size_t i = 0; i < tasks_.size(); ++i) {
    RowTask& task = tasks_[i];
    RequestState& request = *task.request;
    if (!request.error.empty() || task.scores()) continue;
    try {
      if (request.beams) {  // all beams of a search are sampled in one step, one behind the other
        beams.push_back(&task);
        if (i + 1 < tasks_.size() && tasks_[i + 1].request == &request) continue;
        result.beams.push_back(advance(request, beams));
        beams.clear();
        continue;
      }
      if (request.request.sampling.reports_logprobs()) {
        SampleState& sample = request.samples[task.sample];
        sample.logprobs.append(task.outcome.logprobs, request.max_tokens);
      }
      result.tokens.push_back({task.sequence, task.sample, task.outcome.token, task.outcome.stop});
    } catch (const std::bad_alloc&) {
      beams.clear();
      fail(request);
    }
  }
  for (const ScheduledSequence& s : plan.sequences) {
    const RequestState* request = requests_.find(s.request);
    if (request != nullptr && !request->error.empty() && (result.failed.empty() || result.failed.back() != s.request))
      result.failed.push_back(s.request);
  }
  return result;
}

BeamResult LocalExecutor::advance(RequestState& request, std::span<RowTask* const> tasks) {
  BeamState& beams = *request.beams;
  std::vector<std::vector<sampling::BeamCandidate>> candidates(beams.places.size());
  for (std::size_t i = 0; i < candidates.size(); ++i) {
    const auto task = std::ranges::find(tasks, beams.places[i], [](const RowTask* t) { return t->sample; });
    if (task == tasks.end()) throw Corrupt(str("beam ", beams.places[i], " is missing from its step"));
    candidates[i] = std::move((*task)->candidates);
  }
  BeamResult result{request.id, {}};
  std::vector<sampling::Matcher> matchers;
  const std::vector<sampling::BeamSearch::Child> children = beams.search.advance(candidates);
  for (auto child = children.begin(); child != children.end(); ++child) {
    result.children.push_back({beams.places[child->parent], child->token});
    if (beams.matchers.empty()) continue;
    sampling::Matcher& parent = beams.matchers[child->parent];
    const bool goes_on_elsewhere =
        std::any_of(child + 1, children.end(), [&](const auto& c) { return c.parent == child->parent; });
    matchers.push_back(goes_on_elsewhere ? parent : std::move(parent));
    matchers.back().take(child->token);
  }
  beams.matchers = std::move(matchers);
  beams.places = place_beams(result.children);
  return result;
}

}  // namespace pagedcore
