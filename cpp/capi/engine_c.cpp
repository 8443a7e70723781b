#include <algorithm>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/field_lists.hpp"
#include "base/text.hpp"
#include "capi/engine_handle.hpp"
#include "capi/options.hpp"
#include "capi/record.hpp"
#include "capi/status.hpp"
#include "pagedcore/container_text.hpp"
#include "pagedcore/engine.hpp"
#include "pagedcore/error.hpp"

namespace {

using namespace pagedcore;
using capi::guarded;
using capi::require;

/// A map as a record.
template <class Map, class ToText>
std::unique_ptr<pc_record> record_of(const Map& map, const ToText& to_text) {
  auto record = std::make_unique<pc_record>();
  for (const auto& [name, value] : map) record->values.emplace_back(name, to_text(value));
  return record;
}

std::unique_ptr<pc_record> record_of(const ModelDescription& model) {
  return record_of(model.to_text(), [](const std::string& text) { return text; });
}

std::unique_ptr<pc_record> record_of(const MemoryPlan& plan) { return std::make_unique<pc_record>(values_of(plan)); }

struct Owner {
  std::uint64_t salt = 0;
  bool shared = false;
};
void register_prefix(pc_engine* engine, const char* name, const int32_t* tokens, size_t count, Owner owner,
                     uint64_t* request) {
  require(engine, "engine");
  require(name, "name");
  require(request, "request");
  const auto list = capi::context_of(*engine, tokens, count, "tokens");
  *request = raw(engine->engine.register_prefix(name, {list.begin(), list.end()}, owner.salt, owner.shared));
}

}  // namespace

pc_status pc_container_model(const char* container_path, pc_record** description) noexcept {
  return guarded([&] {
    require(container_path, "container_path");
    require(description, "description");
    *description = record_of(ModelFile(container_path).description()).release();
  });
}

pc_status pc_container_text(const char* container_path, pc_record** text) noexcept {
  return guarded([&] {
    require(container_path, "container_path");
    require(text, "text");
    const auto values = fields_to_text(text_of(ModelFile(container_path)));
    *text = record_of(values, [](const std::string& value) { return value; }).release();
  });
}

pc_status pc_container_eos_token_ids(const char* container_path, int32_t* tokens, size_t capacity,
                                     size_t* count) noexcept {
  return guarded([&] {
    require(container_path, "container_path");
    require(count, "count");
    if (capacity > 0) require(tokens, "tokens");
    const std::vector<TokenId> ids = ModelFile(container_path).eos_token_ids();
    std::copy_n(ids.begin(), std::min(capacity, ids.size()), tokens);
    *count = ids.size();
  });
}

pc_status pc_plan_memory(const char* container_path, const pc_options* options, pc_record** plan) noexcept {
  return guarded([&] {
    require(container_path, "container_path");
    require(plan, "plan");
    const EngineConfig config = capi::engine_config(options);
    const ModelFile file(container_path);
    *plan = record_of(plan_memory(file.description(), config, 0, &file)).release();
  });
}

pc_status pc_engine_open(const char* container_path, const pc_options* options, pc_engine** engine) noexcept {
  return guarded([&] {
    require(container_path, "container_path");
    require(engine, "engine");
    const EngineConfig config = capi::engine_config(options);
    const ModelFile file(container_path);
    *engine = new pc_engine{Engine(file.description(), file, config)};
  });
}

pc_status pc_engine_close(pc_engine* engine) noexcept {
  return guarded([&] {
    require(engine, "engine");
    engine->engine.close();
  });
}

void pc_engine_free(pc_engine* engine) noexcept { delete engine; }

pc_status pc_engine_describe(const pc_engine* engine, char* buffer, size_t capacity, size_t* length) noexcept {
  return guarded([&] {
    require(engine, "engine");
    require(length, "length");
    capi::give_text(engine->engine.describe(), buffer, capacity, length);
  });
}

pc_status pc_engine_memory_plan(const pc_engine* engine, pc_record** plan) noexcept {
  return guarded([&] {
    require(engine, "engine");
    require(plan, "plan");
    *plan = record_of(engine->engine.memory_plan()).release();
  });
}

pc_status pc_engine_model(const pc_engine* engine, pc_record** description) noexcept {
  return guarded([&] {
    require(engine, "engine");
    require(description, "description");
    *description = record_of(engine->engine.model()).release();
  });
}

pc_status pc_engine_stats(const pc_engine* engine, pc_record** stats) noexcept {
  return guarded([&] {
    require(engine, "engine");
    require(stats, "stats");
    *stats = record_of(engine->engine.stats(), [](double value) { return capi::number_text(value); }).release();
  });
}

pc_status pc_engine_clear_prefix_cache(pc_engine* engine) noexcept {
  return guarded([&] {
    require(engine, "engine");
    engine->engine.clear_prefix_cache();
  });
}

pc_status pc_engine_register_prefix(pc_engine* engine, const char* name, const int32_t* tokens, size_t count,
                                    uint64_t salt, uint64_t* request) noexcept {
  return guarded([&] { register_prefix(engine, name, tokens, count, {salt, false}, request); });
}

pc_status pc_engine_register_shared_prefix(pc_engine* engine, const char* name, const int32_t* tokens, size_t count,
                                           uint64_t salt, uint64_t* request) noexcept {
  return guarded([&] { register_prefix(engine, name, tokens, count, {salt, true}, request); });
}

pc_status pc_engine_release_prefix(pc_engine* engine, const char* name) noexcept {
  return pc_engine_release_salted_prefix(engine, name, 0);
}

pc_status pc_engine_release_salted_prefix(pc_engine* engine, const char* name, uint64_t salt) noexcept {
  return guarded([&] {
    require(engine, "engine");
    require(name, "name");
    engine->engine.release_prefix(name, salt);
  });
}

pc_status pc_engine_now(const pc_engine* engine, double* seconds) noexcept {
  return guarded([&] {
    require(engine, "engine");
    require(seconds, "seconds");
    *seconds = engine->engine.now();
  });
}

pc_status pc_engine_busy(const pc_engine* engine, int32_t* busy) noexcept {
  return guarded([&] {
    require(engine, "engine");
    require(busy, "busy");
    *busy = engine->engine.busy() ? 1 : 0;
  });
}

pc_status pc_engine_drain(pc_engine* engine, double timeout, size_t* left) noexcept {
  return guarded([&] {
    require(engine, "engine");
    require(left, "left");
    *left = engine->engine.drain(timeout).size();
  });
}

pc_status pc_engine_pause(pc_engine* engine) noexcept {
  return guarded([&] {
    require(engine, "engine");
    engine->engine.pause();
  });
}

pc_status pc_engine_resume(pc_engine* engine) noexcept {
  return guarded([&] {
    require(engine, "engine");
    engine->engine.resume();
  });
}
