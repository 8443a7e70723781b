#include "pagedcore/engine.hpp"

#include <algorithm>
#include <mutex>
#include <utility>

#include "base/host_memory.hpp"
#include "base/text.hpp"
#include "engine/engine_loop.hpp"
#include "engine/engine_ranks.hpp"
#include "engine/engine_stats.hpp"
#include "engine/kv_identity.hpp"
#include "engine/local_executor.hpp"
#include "engine/memory_plan.hpp"
#include "engine/thread_ranks.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore {

Executor::~Executor() = default;
SwapCounters Executor::swap_counters() const { return {}; }

namespace {

/// Where prefixes go beyond this engine.
PrefixPlaces places_of(const EngineConfig& config, const MemoryPlan& plan, store::Identity identity) {
  PrefixPlaces places;
  places.format = {plan.block_size, static_cast<std::uint32_t>(plan.num_layer_groups()), plan.kv_block};
  if (!config.store.kv_store.empty())
    places.store = std::make_unique<store::BlockStore>(
        store::StoreConfig{config.store.kv_store, config.store.kv_store_size, identity, places.format, plan.windows});
  places.identity = std::move(identity);
  return places;
}

}  // namespace

struct Engine::Impl {
  Impl(const ModelDescription& description, const WeightSource& weights, const EngineConfig& given)
      : model_description(description) {
    const EngineConfig config = for_its_device(for_its_model(given, description), description);
    std::unique_ptr<Timeline> timeline;
    if (!config.timeline_file.empty())
      timeline = std::make_unique<Timeline>(config.timeline_file, static_cast<std::size_t>(config.tensor_parallel));
    for (std::int32_t rank = 0; rank < config.tensor_parallel; ++rank) {
      ranks.push_back({make_backend(of_rank(config, rank)), nullptr, nullptr, nullptr});
      if (timeline && parse_device(config.device).kind == DeviceKind::cpu)  // a GPU's operations are only enqueued
        ranks.back().backend =
            make_timed(std::move(ranks.back().backend), timeline->operations(static_cast<std::size_t>(rank)));
    }
    Backend& backend = *ranks[0].backend;
    plan = plan_memory(description, config, backend, available_memory(backend), &weights);
    check_swap_space(plan, parse_device(config.device).kind == DeviceKind::cpu, host_memory_limit());
    backend.reserve(plan.weights + plan.activations + plan.kv_cache());
    const HashedWeights hashed(weights);
    const bool moves = moves_prefixes(config);
    load_ranks(ranks, description, moves ? static_cast<const WeightSource&>(hashed) : weights, config, plan);
    text = str(backend.describe(), ranks.size() > 1 ? str(" each in ", ranks.size(), " ranks") : "", "; ",
               plan.num_blocks, " blocks of ", plan.block_size, " tokens, context ", plan.max_context);
    if (ranks.size() > 1) {
      std::vector<RankParts> parts;
      for (EngineRank& rank : ranks) parts.push_back({*rank.backend, *rank.model, *rank.kv, rank.swap.get()});
      others = std::make_unique<ThreadRanks>(parts);
    }
    auto requests = std::make_unique<RequestTable>();
    auto executor = std::make_unique<LocalExecutor>(backend, *ranks[0].model, *ranks[0].kv, *requests,
                                                    ranks[0].swap.get(), others.get());
    SchedulerConfig scheduling = config.scheduler;
    scheduling.max_context = plan.max_context;
    const KvCacheConfig cache{.num_blocks = plan.num_blocks,
                              .block_size = plan.block_size,
                              .enable_prefix_caching = config.kv.enable_prefix_caching,
                              .windows = plan.windows,
                              .num_swap_blocks = plan.num_swap_blocks,
                              .allocation = config.kv.allocation,
                              .max_reservation = plan.max_context,
                              .max_events = config.kv.cache_events};
    PrefixPlaces places;
    if (moves) places = places_of(config, plan, kv_identity(description, hashed.digest(), backend, *ranks[0].kv));
    std::optional<TraceWriter> trace;
    if (!config.trace_file.empty()) trace.emplace(config.trace_file, scheduling, cache);
    loop = std::make_unique<EngineLoop>(RequestLimits{description.vocab_size, plan.max_context, config.kv.cache_events,
                                                      plan.requests, config.max_waiting, traits_of(description)},
                                        Scheduler(scheduling, cache), std::move(requests), std::move(executor),
                                        std::move(trace), std::move(places), std::move(timeline));
  }

  void close() noexcept {
    loop->close();  // only after the thread has ended may its memory go
    const std::lock_guard lock(closing);
    others.reset();
    ranks.clear();
  }

  ModelDescription model_description;
  MemoryPlan plan;
  std::string text;
  std::mutex closing;
  std::vector<EngineRank> ranks;
  std::unique_ptr<ThreadRanks> others;  // when there are more than one
  std::unique_ptr<EngineLoop> loop;
};

Engine::Engine(const ModelDescription& model, const WeightSource& weights, const EngineConfig& config)
    : impl_(std::make_unique<Impl>(model, weights, config)) {}

Engine::~Engine() {
  // In a child of fork() there is no thread to join, and locks may be held by threads that do not exist: leak it.
  if (impl_->loop->fork_guard().in_child()) {
    static_cast<void>(impl_.release());
  } else {
    impl_->close();
  }
}

RequestId Engine::submit(EngineRequest request) { return impl_->loop->submit(std::move(request)); }
std::vector<RequestId> Engine::submit_all(std::vector<EngineRequest> requests) {
  return impl_->loop->submit_all(std::move(requests));
}
void Engine::validate(const EngineRequest& request) const { impl_->loop->validate(request); }
void Engine::abort(RequestId id) { impl_->loop->abort(id); }
void Engine::abort(std::string_view request_id) { impl_->loop->abort(request_id); }
std::vector<EngineOutput> Engine::wait(double timeout, QueueId queue) { return impl_->loop->wait(timeout, queue); }
int Engine::output_fd(QueueId queue) { return impl_->loop->output_fd(queue); }
void Engine::on_output(std::function<void()> callback, QueueId queue) {
  impl_->loop->on_output(std::move(callback), queue);
}
QueueId Engine::open_queue() { return impl_->loop->open_queue(); }
void Engine::close_queue(QueueId queue) noexcept { impl_->loop->close_queue(queue); }
std::vector<RequestId> Engine::drain(double timeout) { return impl_->loop->drain(timeout); }
void Engine::pause() { impl_->loop->pause(); }
void Engine::resume() { impl_->loop->resume(); }
double Engine::now() const noexcept { return impl_->loop->now(); }
bool Engine::busy() const { return impl_->loop->busy(); }
std::map<std::string, double> Engine::stats() const {
  EngineStats stats = impl_->loop->stats();
  stats.weights = impl_->plan.weights;
  stats.native_weights = impl_->plan.native_weights;
  stats.integer_weights = impl_->plan.integer_weights;
  stats.ranks = static_cast<std::uint32_t>(impl_->plan.rank_weights.size());
  stats.rank_weights_most = *std::ranges::max_element(impl_->plan.rank_weights);
  return to_map(stats);
}
const MemoryPlan& Engine::memory_plan() const noexcept { return impl_->plan; }
const ModelDescription& Engine::model() const noexcept { return impl_->model_description; }
std::string Engine::describe() const { return impl_->text; }
void Engine::clear_prefix_cache() { impl_->loop->clear_prefix_cache(); }
RequestId Engine::register_prefix(const std::string& name, std::vector<TokenId> tokens, std::uint64_t salt, bool shared,
                                  QueueId queue) {
  return impl_->loop->register_prefix(name, std::move(tokens), salt, shared, queue);
}
void Engine::release_prefix(const std::string& name, std::uint64_t salt) { impl_->loop->release_prefix(name, salt); }
std::vector<std::byte> Engine::export_prefix(std::span<const TokenId> tokens, std::uint64_t salt) {
  return impl_->loop->export_prefix(tokens, salt);
}
std::uint32_t Engine::import_prefix(std::span<const std::byte> bytes) { return impl_->loop->import_prefix(bytes); }
std::vector<CacheEvent> Engine::cache_events(double timeout) { return impl_->loop->cache_events(timeout); }
EngineSnapshot Engine::snapshot(const SnapshotLimits& limits) const { return impl_->loop->snapshot(limits); }
void Engine::force_preemption(std::uint32_t period, PreemptionMode mode) {
  impl_->loop->force_preemption(period, mode);
}

void Engine::close() noexcept {
  if (!impl_->loop->fork_guard().in_child()) impl_->close();
}

}  // namespace pagedcore
