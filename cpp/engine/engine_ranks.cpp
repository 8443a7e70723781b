#include "engine/engine_ranks.hpp"

#include <exception>
#include <system_error>
#include <thread>

#include "base/exception_memory.hpp"
#include "base/signals_blocked.hpp"
#include "base/text.hpp"
#include "engine/memory_plan.hpp"
#include "pagedcore/devices.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore {
namespace {

void load(EngineRank& rank, const ModelRank& which, const ModelDescription& description, const WeightSource& weights,
          const EngineConfig& config, const MemoryPlan& plan) {
  rank.model = std::make_unique<Model>(description, weights, *rank.backend, config.scheduler.max_batched_tokens,
                                       max_logit_rows(config), which);
  rank.kv =
      rank.backend->allocate_kv(rank.model->kv_shape(static_cast<std::int32_t>(plan.block_size)), plan.num_blocks);
  if (plan.num_swap_blocks == 0) return;
  const auto in_file = static_cast<std::uint32_t>(plan.swap_file / plan.kv_block);
  const std::string path = which.rank == 0 ? config.swap.swap_file : str(config.swap.swap_file, ".rank", which.rank);
  const auto block = static_cast<std::size_t>(plan.rank_kv_block[static_cast<std::size_t>(which.rank)]);
  rank.swap = std::make_unique<SwapStore>(SwapConfig{block, plan.num_swap_blocks - in_file, in_file},
                                          in_file > 0 ? make_swap_file(path) : nullptr);
}

}  // namespace

EngineConfig of_rank(EngineConfig config, std::int32_t rank) {
  const std::int32_t ranks = config.tensor_parallel;
  if (ranks == 1) return config;
  const int threads = config.cpu.threads > 0 ? config.cpu.threads : usable_cpus();
  config.cpu.threads = threads * (rank + 1) / ranks - threads * rank / ranks;
  return config;
}

void load_ranks(std::vector<EngineRank>& ranks, const ModelDescription& model, const WeightSource& weights,
                const EngineConfig& config, const MemoryPlan& plan) {
  const auto size = static_cast<std::int32_t>(ranks.size());
  if (size == 1) return load(ranks[0], {}, model, weights, config, plan);
  std::vector<std::exception_ptr> failures(ranks.size());
  std::vector<std::thread> threads;
  const auto run = [&](std::size_t rank) noexcept {
    take_exception_memory();
    try {
      load(ranks[rank], {static_cast<std::int32_t>(rank), size}, model, weights, config, plan);
    } catch (...) {
      failures[rank] = std::current_exception();
    }
  };
  try {
    const SignalsBlocked guard;
    threads.reserve(ranks.size());
    for (std::size_t rank = 1; rank < ranks.size(); ++rank) threads.emplace_back([&, rank] { run(rank); });
  } catch (const std::exception& e) {
    for (std::thread& thread : threads) thread.join();
    throw OutOfMemory(str("only ", threads.size(), " of ", size - 1, " threads could be started (", e.what(),
                          "); ask for a smaller tensor_parallel, or raise the limit on threads or memory"));
  }
  run(0);
  for (std::thread& thread : threads) thread.join();
  for (const std::exception_ptr& failure : failures)
    if (failure) std::rethrow_exception(failure);
}

}  // namespace pagedcore
