// Requests in, outputs out.
#include <algorithm>
#include <functional>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "base/text.hpp"
#include "capi/engine_handle.hpp"
#include "capi/outputs.hpp"
#include "capi/status.hpp"
#include "pagedcore/error.hpp"

using namespace pagedcore;
using capi::guarded;
using capi::require;

namespace {

/// More than an engine could take: a count that is wrong is refused before anything behind the array is read.
constexpr size_t kMostRequests = size_t{1} << 24;

std::vector<EngineRequest> requests_of(const pc_engine& engine, QueueId queue, const pc_request* requests,
                                       size_t count) {
  if (count > kMostRequests)
    throw InvalidArgument(str("argument 'count' is ", count, "; ", kMostRequests, " requests at most"));
  std::vector<EngineRequest> list;
  list.reserve(count);
  for (size_t i = 0; i < count; ++i) {
    const pc_request& r = requests[i];
    try {
      const auto prompt = capi::context_of(engine, r.prompt, r.prompt_length, "prompt");
      list.push_back(capi::engine_request(prompt, r.options));
    } catch (const InvalidArgument& e) {
      throw InvalidArgument(str("request ", i, ": ", e.what()));
    }
    list.back().queue = queue;
  }
  return list;
}

void wait(pc_engine* engine, uint64_t queue, double timeout, pc_outputs** outputs) {
  require(engine, "engine");
  require(outputs, "outputs");
  *outputs = std::make_unique<pc_outputs>(engine->engine.wait(timeout, QueueId{queue})).release();
}

void output_fd(pc_engine* engine, uint64_t queue, int* fd) {
  require(engine, "engine");
  require(fd, "fd");
  *fd = engine->engine.output_fd(QueueId{queue});
}

void cache_events(pc_engine* engine, double timeout, pc_cache_events** events) {
  require(engine, "engine");
  require(events, "events");
  *events = std::make_unique<pc_cache_events>(engine->engine.cache_events(timeout)).release();
}

}  // namespace

pc_status pc_engine_submit(pc_engine* engine, const int32_t* prompt, size_t prompt_length, const pc_options* options,
                           uint64_t* request) noexcept {
  return guarded([&] {
    require(engine, "engine");
    require(request, "request");
    const auto tokens = capi::context_of(*engine, prompt, prompt_length, "prompt");
    *request = raw(engine->engine.submit(capi::engine_request(tokens, options)));
  });
}

pc_status pc_engine_validate(const pc_engine* engine, const int32_t* prompt, size_t prompt_length,
                             const pc_options* options) noexcept {
  return guarded([&] {
    require(engine, "engine");
    const auto tokens = capi::context_of(*engine, prompt, prompt_length, "prompt");
    engine->engine.validate(capi::engine_request(tokens, options));
  });
}

pc_status pc_engine_submit_all(pc_engine* engine, uint64_t queue, const pc_request* requests, size_t count,
                               uint64_t* ids) noexcept {
  return guarded([&] {
    require(engine, "engine");
    if (count > 0) require(requests, "requests");
    if (count > 0) require(ids, "ids");
    const auto submitted = engine->engine.submit_all(requests_of(*engine, QueueId{queue}, requests, count));
    std::transform(submitted.begin(), submitted.end(), ids, [](RequestId id) { return raw(id); });
  });
}

pc_status pc_engine_abort(pc_engine* engine, uint64_t request) noexcept {
  return guarded([&] {
    require(engine, "engine");
    engine->engine.abort(RequestId{request});
  });
}

pc_status pc_engine_abort_named(pc_engine* engine, const char* request_id) noexcept {
  return guarded([&] {
    require(engine, "engine");
    require(request_id, "request_id");
    engine->engine.abort(std::string_view(request_id));
  });
}

pc_status pc_engine_open_queue(pc_engine* engine, uint64_t* queue) noexcept {
  return guarded([&] {
    require(engine, "engine");
    require(queue, "queue");
    *queue = raw(engine->engine.open_queue());
  });
}

pc_status pc_engine_close_queue(pc_engine* engine, uint64_t queue) noexcept {
  return guarded([&] {
    require(engine, "engine");
    engine->engine.close_queue(QueueId{queue});
  });
}

pc_status pc_engine_wait(pc_engine* engine, double timeout, pc_outputs** outputs) noexcept {
  return guarded([&] { wait(engine, 0, timeout, outputs); });
}

pc_status pc_engine_wait_queue(pc_engine* engine, uint64_t queue, double timeout, pc_outputs** outputs) noexcept {
  return guarded([&] { wait(engine, queue, timeout, outputs); });
}

pc_status pc_engine_output_fd(pc_engine* engine, int* fd) noexcept {
  return guarded([&] { output_fd(engine, 0, fd); });
}

pc_status pc_engine_queue_fd(pc_engine* engine, uint64_t queue, int* fd) noexcept {
  return guarded([&] { output_fd(engine, queue, fd); });
}

pc_status pc_engine_on_output(pc_engine* engine, uint64_t queue, pc_callback callback, void* data) noexcept {
  return guarded([&] {
    require(engine, "engine");
    std::function<void()> call;
    if (callback != nullptr) call = [callback, data] { callback(data); };
    engine->engine.on_output(std::move(call), QueueId{queue});
  });
}

pc_status pc_engine_cache_events(pc_engine* engine, pc_cache_events** events) noexcept {
  return guarded([&] { cache_events(engine, 0.0, events); });
}

pc_status pc_engine_wait_cache_events(pc_engine* engine, double timeout, pc_cache_events** events) noexcept {
  return guarded([&] { cache_events(engine, timeout, events); });
}
