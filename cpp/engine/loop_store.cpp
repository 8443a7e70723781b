// The engine thread's side of a store: what happens to it between steps, and at the end.
#include <new>
#include <utility>

#include "engine/engine_loop.hpp"

namespace pagedcore {
namespace {

constexpr double kLastWrites = 10.0;  // seconds that a closing engine spends on what its store has not got yet
constexpr std::size_t kCopiedPerStep = std::size_t{8} << 20;  // bytes, out of the cache between two steps

}  // namespace

void EngineLoop::run_command(CacheCommand& command) {
  command.act(scheduler_, *executor_, trace_ ? &*trace_ : nullptr);
}

bool EngineLoop::has_store_work() const noexcept {
  return beyond_.traffic && !pace_.paused && beyond_.traffic->has_work();
}

/// Without memory it is done at the next step, or not at all: it is a cache.
void EngineLoop::tend_store() {
  if (!beyond_.traffic || pace_.paused) return;
  try {
    beyond_.traffic->work(scheduler_, *executor_, trace_ ? &*trace_ : nullptr,
                          scheduler_.has_work() ? kCopiedPerStep : ~std::size_t{0});
  } catch (const std::bad_alloc&) {
  }
}

/// A request waits for what the store has of its prompt. Without memory to read it waits no more.
void EngineLoop::want_stored(RequestId id) {
  const RequestState* request = requests_->find(id);
  try {
    if (request != nullptr && beyond_.traffic)
      return beyond_.traffic->want(id, request->request.prompt, request->request.options.salt);
  } catch (const std::bad_alloc&) {
  }
  scheduler_.end_store_read(id);
  if (trace_) trace_->end_store_read(id);
}

/// The KV of a prompt and of `output`, all of it but the last token's, is in the cache.
void EngineLoop::keep(const RequestState& request, std::span<const TokenId> output) noexcept {
  if (!beyond_.traffic) return;
  try {
    std::vector<TokenId> tokens;
    tokens.reserve(request.request.prompt.size() + output.size());
    tokens.assign(request.request.prompt.begin(), request.request.prompt.end());
    if (!output.empty()) tokens.insert(tokens.end(), output.begin(), output.end() - 1);
    beyond_.traffic->keep(std::move(tokens), request.request.options.salt);
  } catch (const std::bad_alloc&) {
  }
}

/// Behind a window blocks are gone when a request ends: prompts that continue this one need those that it ended with.
void EngineLoop::keep_prompt(const RequestState& request) noexcept {
  if (beyond_.traffic && beyond_.traffic->has_windows()) keep(request, {});
}

/// The mailbox is closed.
void EngineLoop::write_last() {
  mailbox_.farewell();
  if (beyond_.traffic) beyond_.traffic->flush(scheduler_, *executor_, kLastWrites);
}

}  // namespace pagedcore
