// What an executor does besides steps: blocks in and out of its KV cache, for a store and for other engines. And which
// rows of a step have which adapter.
#include <algorithm>

#include "engine/local_executor.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore {

void Executor::get_blocks(std::span<const BlockId>, std::span<std::byte* const>) {
  throw Unsupported("this executor gives no blocks out of the KV cache: no kv_store, and no prefix is exported");
}
void Executor::put_blocks(std::span<const BlockId>, std::span<const std::byte* const>) {
  throw Unsupported("this executor takes no blocks into the KV cache: no kv_store, and no prefix is imported");
}

void Executor::load_adapter(std::int32_t, const AdapterWeights&) {
  throw Unsupported("this executor takes no adapters");
}
void Executor::drop_adapter(std::int32_t) { throw Unsupported("this executor takes no adapters"); }

/// For each row the slot of its request's adapter, -1: none. Empty where no row has one.
std::span<const std::int32_t> LocalExecutor::adapters_of(const StepPlan& plan) {
  adapters_.clear();
  for (const ScheduledSequence& s : plan.sequences) {
    const RequestState* request = requests_.find(s.request);
    if (request == nullptr || !request->adapter) continue;
    if (adapters_.empty()) adapters_.assign(plan.tokens.size(), -1);
    const auto first = adapters_.begin() + static_cast<std::ptrdiff_t>(s.first_row);
    std::fill(first, first + static_cast<std::ptrdiff_t>(s.num_rows), request->adapter->slot);
  }
  return adapters_;
}

void LocalExecutor::get_blocks(std::span<const BlockId> blocks, std::span<std::byte* const> dst) {
  backend_.swap_out(kv_, blocks, dst);
  backend_.synchronize();
}

void LocalExecutor::put_blocks(std::span<const BlockId> blocks, std::span<const std::byte* const> src) {
  backend_.swap_in(kv_, blocks, src);
  backend_.synchronize();
}

}  // namespace pagedcore
