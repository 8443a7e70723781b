// What one rank does in a step: moves blocks, copies blocks, computes rows. The whole of it on ranks above 0; rank 0,
// which also samples, and an engine without ranks do it in between other things (LocalExecutor).
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "engine/swap_store.hpp"
#include "pagedcore/backend.hpp"
#include "pagedcore/model.hpp"
#include "pagedcore/step_plan.hpp"

namespace pagedcore {

/// What ranks need of the plan of a step, which is the same for all of them: plain data, in the memory of whoever made
/// it. Block ids and swap slots mean the same at every rank; what lies there is the rank's heads' part.
struct RankStep {
  StepId step{};
  std::span<const BlockSwap> swap_outs;
  std::span<const BlockSwap> swap_ins;
  std::span<const BlockCopy> copies;
  BatchView batch;  // without rows: nothing is computed
  std::span<const std::int32_t> logit_rows;
  std::span<const std::int32_t> hidden_rows;
};

/// Takes logits or hidden states, as Model::forward() gives them.
using TakeRows = std::function<void(std::int64_t first, const Tensor& rows)>;

class RankRunner {
 public:
  /// Refers to all four; they must outlive it. `swap` may be null when plans never swap.
  RankRunner(Backend& backend, Model& model, KvStorage& kv, SwapStore* swap);

  /// A step that was run before, and is run again since something threw, moves no block twice. Throws as
  /// Model::forward(), whose collective calls it makes: all ranks run the same steps.
  void run(const RankStep& step, const TakeRows& take_logits, const TakeRows& take_hidden);
  /// One for each of the latest step's swap_outs, then its swap_ins: 1 for a block that was lost.
  std::span<const std::uint8_t> lost() const noexcept { return lost_; }
  const SwapStore* swap_store() const noexcept { return swap_; }

 private:
  void swap(const RankStep& step);

  Backend& backend_;
  Model& model_;
  KvStorage& kv_;
  SwapStore* swap_;
  std::vector<std::uint8_t> lost_;
  StepId swapped_{};  // the last step whose blocks were moved
};

}  // namespace pagedcore
