// Blocks in and out of an executor's KV cache, between steps: for a store, and for other engines.
#include "engine/local_executor.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore {

void Executor::get_blocks(std::span<const BlockId>, std::span<std::byte* const>) {
  throw Unsupported("this executor gives no blocks out of the KV cache: no kv_store, and no prefix is exported");
}
void Executor::put_blocks(std::span<const BlockId>, std::span<const std::byte* const>) {
  throw Unsupported("this executor takes no blocks into the KV cache: no kv_store, and no prefix is imported");
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
