// The executor of one process: a Model on a Backend, and sampling by the backend or on its host threads. Where ranks
// share the model it is rank 0.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "engine/rank_group.hpp"
#include "engine/rank_runner.hpp"
#include "engine/request_table.hpp"
#include "engine/row_task.hpp"
#include "engine/scratch_pool.hpp"
#include "engine/swap_store.hpp"
#include "pagedcore/backend.hpp"
#include "pagedcore/engine.hpp"
#include "pagedcore/model.hpp"

namespace pagedcore {

class LocalExecutor final : public Executor {
 public:
  /// Refers to all; they must outlive it. `swap` may be null when plans never swap, `ranks` where the model is whole.
  LocalExecutor(Backend& backend, Model& model, KvStorage& kv, RequestTable& requests, SwapStore* swap,
                RankGroup* ranks = nullptr);

  /// Copies blocks, computes the rows, then samples and scores. A request whose sampling throws, or lacks memory, gets
  /// its `error` set and is named in StepResult::failed; the others are unaffected. What throws std::bad_alloc or
  /// OutOfMemory can be run again, without those requests that have left the table. Anything else fails the step.
  StepResult run(const StepPlan& plan) override;
  SwapCounters swap_counters() const override;
  void get_blocks(std::span<const BlockId> blocks, std::span<std::byte* const> dst) override;
  void put_blocks(std::span<const BlockId> blocks, std::span<const std::byte* const> src) override;

 private:
  void compute(const RankStep& step);
  void compute_with_ranks(const RankStep& step);
  void host_parallel(std::int64_t count, const std::function<void(std::int64_t)>& body);
  void note_failures(const std::vector<SwappedRequest>& requests, std::size_t first_move);
  BatchView describe(const StepPlan& plan);
  void list_tasks(const StepPlan& plan);
  void list_tasks(const ScheduledSequence& s, RequestState& request);
  void list_pooled(const ScheduledSequence& s, RequestState& request);
  void take_hidden(std::int64_t first, const Tensor& hidden);
  void make_embeddings();
  void run_tasks(std::int64_t first_row, const Tensor& logits);
  std::vector<RowTask*> leave_to_backend(std::span<RowTask> tasks, std::int64_t first_row, const Tensor& logits);
  const float* download(std::span<RowTask* const> tasks, std::int64_t first_row, const Tensor& logits);
  void keep_scores(std::span<RowTask> tasks);
  StepResult collect(const StepPlan& plan);
  static BeamResult advance(RequestState& request, std::span<RowTask* const> tasks);

  Backend& backend_;
  Model& model_;
  KvStorage& kv_;
  RequestTable& requests_;
  RankRunner runner_;
  RankGroup* ranks_;
  // Kept from step to step for their capacity.
  std::vector<TokenRange> ranges_;
  std::vector<std::int32_t> logit_rows_;
  std::vector<RowTask> tasks_;     // ordered by logit_row
  std::vector<RowTask*> drawing_;  // of them, those whose samples go on under a constraint
  /// A text's rows that embeddings are made of, in hidden_rows_.
  struct PooledRange {
    RequestState* request;
    std::size_t position;  // of the first
    std::size_t first, count;
  };
  std::vector<std::int32_t> hidden_rows_;
  std::vector<PooledRange> pooled_;
  ScratchPool scratch_;
  std::vector<std::uint8_t> lost_;  // of the step's moves
  std::vector<RequestId> swap_failed_;
  // Where the host cannot read the backend's memory:
  std::vector<SamplingTask> backend_tasks_;
  std::vector<SamplingResult> backend_results_;
  std::vector<std::vector<std::uint32_t>> masks_;
  std::vector<float> downloaded_;  // logits, or hidden states
};

}  // namespace pagedcore
