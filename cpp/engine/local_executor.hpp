// The executor of one process: a Model on a Backend, and sampling on the backend's host threads.
#pragma once

#include <span>
#include <vector>

#include "engine/request_table.hpp"
#include "engine/swap_store.hpp"
#include "pagedcore/backend.hpp"
#include "pagedcore/engine.hpp"
#include "pagedcore/model.hpp"

namespace pagedcore {

class LocalExecutor final : public Executor {
 public:
  /// Refers to all five; they must outlive it. `swap` may be null when plans never swap.
  LocalExecutor(Backend& backend, Model& model, KvStorage& kv, RequestTable& requests, SwapStore* swap);

  /// Copies blocks, computes the rows, then samples and scores. A request whose sampling throws gets its `error` set
  /// and is named in StepResult::failed; the others are unaffected. Anything else that throws fails the step.
  StepResult run(const StepPlan& plan) override;
  SwapCounters swap_counters() const override;

 private:
  /// What is wanted of one row of logits.
  struct Task {
    RequestState* request = nullptr;
    SequenceId sequence{};
    std::uint32_t sample = 0;    // of a draw
    std::int64_t position = -1;  // of a prompt row to score, else -1
    std::int64_t logit_row = 0;  // index into logit_rows_
    SampleOutcome outcome;
    std::vector<sampling::BeamCandidate> candidates;  // of a beam
    std::string error;
  };

  void swap(const StepPlan& plan);
  void note_failures(const std::vector<SwappedRequest>& requests);
  BatchView describe(const StepPlan& plan);
  void list_tasks(const StepPlan& plan);
  void run_tasks(std::int64_t first_row, const Tensor& logits);
  static void run_task(Task& task, std::span<const float> logits);
  StepResult collect(const StepPlan& plan);
  static BeamResult advance(RequestState& request, std::span<Task* const> tasks);

  Backend& backend_;
  Model& model_;
  KvStorage& kv_;
  RequestTable& requests_;
  SwapStore* swap_;
  // Kept from step to step for their capacity.
  std::vector<TokenRange> ranges_;
  std::vector<std::uint32_t> block_tables_;
  std::vector<std::int32_t> logit_rows_;
  std::vector<Task> tasks_;  // ordered by logit_row
  std::vector<std::uint8_t> failed_moves_;
  std::vector<RequestId> swap_failed_;
  std::vector<float> downloaded_;  // logits, where the host cannot read the backend's memory
};

}  // namespace pagedcore
