// Adapters come and go between two steps: the caller's side of it.
#include <future>
#include <utility>

#include "engine/engine_loop.hpp"

namespace pagedcore {

std::shared_ptr<const Adapter> EngineLoop::adapter_of(const EngineRequest& request) const {
  const std::string& name = request.options.adapter;
  return name.empty() ? nullptr : names_.adapters.find(name);
}

void EngineLoop::drop_unused_adapters() {
  const std::vector<std::int32_t> slots = names_.adapters.collect();
  if (slots.empty()) return;
  act_between_steps(
      std::packaged_task<void(Scheduler&, Executor&, TraceWriter*)>([&](Scheduler&, Executor& executor, TraceWriter*) {
        for (const std::int32_t slot : slots) executor.drop_adapter(slot);
      }));
}

void EngineLoop::load_adapter(const std::string& name, const AdapterWeights& weights) {
  fork_guard_.check();
  const Digest digest = digest_of(weights);
  drop_unused_adapters();
  const std::shared_ptr<const Adapter> adapter = names_.adapters.reserve(name, digest);
  try {
    act_between_steps(std::packaged_task<void(Scheduler&, Executor&, TraceWriter*)>(
        [&](Scheduler&, Executor& executor, TraceWriter*) { executor.load_adapter(adapter->slot, weights); }));
  } catch (...) {
    names_.adapters.cancel(adapter);
    throw;
  }
  names_.adapters.publish(adapter);
}

void EngineLoop::unload_adapter(const std::string& name, bool drain) {
  fork_guard_.check();
  names_.adapters.remove(name, drain);
  drop_unused_adapters();
}

std::vector<std::string> EngineLoop::adapters() const {
  fork_guard_.check();
  return names_.adapters.names();
}

}  // namespace pagedcore
