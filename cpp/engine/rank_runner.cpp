#include "engine/rank_runner.hpp"

#include "base/text.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore {

RankRunner::RankRunner(Backend& backend, Model& model, KvStorage& kv, SwapStore* swap)
    : backend_(backend), model_(model), kv_(kv), swap_(swap) {}

void RankRunner::run(const RankStep& step, const TakeRows& take_logits, const TakeRows& take_hidden) {
  if (step.step != swapped_) {
    swap(step);
    swapped_ = step.step;
  }
  if (!step.copies.empty()) backend_.copy_blocks(kv_, step.copies);
  if (!step.batch.tokens.empty()) {
    const auto batch = backend_.prepare(step.batch, kv_.shape().block_size);
    model_.forward({batch.get(), step.logit_rows, step.hidden_rows, take_hidden, step.batch.tokens}, kv_, take_logits);
  }
}

/// Before anything is computed: what moves out makes room for the rest of the step.
void RankRunner::swap(const RankStep& step) {
  lost_.assign(step.swap_outs.size() + step.swap_ins.size(), 0);
  if (lost_.empty()) return;
  if (swap_ == nullptr) throw Corrupt(str("step ", raw(step.step), " swaps, but there is no swap space"));
  const auto lost = std::span(lost_);
  swap_->store(backend_, kv_, step.swap_outs, lost.first(step.swap_outs.size()));
  swap_->load(backend_, kv_, step.swap_ins, lost.subspan(step.swap_outs.size()));
}

}  // namespace pagedcore
