#include <array>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "base/text.hpp"
#include "capi/outputs.hpp"
#include "capi/status.hpp"
#include "pagedcore/engine.hpp"
#include "pagedcore/error.hpp"

struct pc_engine {
  pagedcore::Engine engine;
};

namespace {

using namespace pagedcore;
using capi::guarded;
using capi::require;

/// A structure made by this version of the header has exactly this size; another size is another version.
template <class Params>
void require_size(const Params& params, const char* name) {
  if (params.struct_size != sizeof(Params)) {
    throw InvalidArgument(str(name, ".struct_size is ", params.struct_size, ", but this library's is ", sizeof(Params),
                              "; start from ", name, "_default() and compile against the header of version ",
                              pc_version()));
  }
}

/// The value whose name is `name`; `fallback` for null.
template <class Enum, std::size_t N>
Enum named(const char* what, const char* name, const std::array<std::string_view, N>& names, Enum fallback) {
  if (name == nullptr) return fallback;
  std::string all;
  for (std::size_t i = 0; i < N; ++i) {
    if (names[i] == name) return static_cast<Enum>(i);
    all.append(all.empty() ? "" : ", ").append(names[i]);
  }
  throw InvalidArgument(str(what, " = '", name, "' is not one of ", all));
}

// In the order of their enums.
constexpr std::array<std::string_view, 3> kOrders{"fcfs", "priority", "fair"};
constexpr std::array<std::string_view, 4> kAdmissions{"known", "watermark", "never_evict", "adaptive"};
constexpr std::array<std::string_view, 2> kVictims{"cheapest", "last_arrival"};

EngineConfig config_of(const pc_engine_params* given) {
  const pc_engine_params p = given != nullptr ? *given : pc_engine_params_default();
  require_size(p, "pc_engine_params");
  EngineConfig c;
  c.kv.block_size = p.block_size;
  c.kv.num_blocks = p.num_blocks;
  c.kv.kv_cache_memory = static_cast<std::size_t>(p.kv_cache_bytes);
  c.scheduler.max_batched_tokens = p.max_batched_tokens;
  c.scheduler.max_sequences = p.max_sequences;
  c.scheduler.max_context = p.max_context;
  c.scheduler.watermark = p.watermark;
  c.kv.enable_prefix_caching = p.enable_prefix_caching != 0;
  c.scheduler.order = named("order", p.order, kOrders, c.scheduler.order);
  c.scheduler.admission = named("admission", p.admission, kAdmissions, c.scheduler.admission);
  c.scheduler.victim = named("victim", p.victim, kVictims, c.scheduler.victim);
  if (p.device != nullptr) c.device = p.device;
  c.cpu.threads = c.cuda.threads = p.threads;
  if (p.dtype != nullptr) c.cpu.dtype = c.cuda.dtype = dtype_from_name(p.dtype);
  if (p.isa != nullptr) c.cpu.isa = p.isa;
  return c;
}

std::vector<TokenId> tokens_of(const int32_t* tokens, size_t count, const char* name) {
  if (count > 0) require(tokens, name);
  return count == 0 ? std::vector<TokenId>{} : std::vector<TokenId>(tokens, tokens + count);
}

EngineRequest request_of(const int32_t* prompt, size_t prompt_length, const pc_sampling_params* given) {
  const pc_sampling_params p = given != nullptr ? *given : pc_sampling_params_default();
  require_size(p, "pc_sampling_params");
  EngineRequest request;
  request.prompt = tokens_of(prompt, prompt_length, "prompt");
  request.options.salt = p.salt;
  request.stream = p.stream != 0;
  request.options.priority = p.priority;
  request.options.tenant = p.tenant;
  SamplingParams& s = request.sampling;
  s.n = p.n;
  s.max_tokens = p.max_tokens;
  s.min_tokens = p.min_tokens;
  s.temperature = p.temperature;
  s.top_k = p.top_k;
  s.top_p = p.top_p;
  s.min_p = p.min_p;
  s.repetition_penalty = p.repetition_penalty;
  s.presence_penalty = p.presence_penalty;
  s.frequency_penalty = p.frequency_penalty;
  if (p.logprobs >= 0) s.logprobs = p.logprobs;
  if (p.prompt_logprobs >= 0) s.prompt_logprobs = p.prompt_logprobs;
  s.seed = p.seed;
  if (p.num_logit_bias > 0) require(p.logit_bias, "logit_bias");
  for (size_t i = 0; i < p.num_logit_bias; ++i) s.logit_bias.emplace_back(p.logit_bias[i].token, p.logit_bias[i].bias);
  s.banned_tokens = tokens_of(p.banned_tokens, p.num_banned_tokens, "banned_tokens");
  s.allowed_token_ids = tokens_of(p.allowed_tokens, p.num_allowed_tokens, "allowed_tokens");
  s.stop_token_ids = tokens_of(p.stop_token_ids, p.num_stop_token_ids, "stop_token_ids");
  return request;
}

pc_memory_plan view_of(const MemoryPlan& plan) {
  return {plan.weights,     plan.activations, plan.kv_block,   plan.kv_cache(), plan.total(),
          plan.kv_tokens(), plan.num_blocks,  plan.block_size, plan.max_context};
}

}  // namespace

pc_engine_params pc_engine_params_default(void) noexcept {
  const EngineConfig c;
  pc_engine_params p = {};
  p.struct_size = sizeof p;
  p.block_size = c.kv.block_size;
  p.num_blocks = c.kv.num_blocks;
  p.kv_cache_bytes = c.kv.kv_cache_memory;
  p.max_batched_tokens = c.scheduler.max_batched_tokens;
  p.max_sequences = c.scheduler.max_sequences;
  p.max_context = c.scheduler.max_context;
  p.threads = c.cpu.threads;
  p.watermark = c.scheduler.watermark;
  p.dtype = "bf16";
  p.isa = "auto";
  p.enable_prefix_caching = c.kv.enable_prefix_caching ? 1 : 0;
  p.device = "cpu";
  p.order = "fcfs";
  p.admission = "known";
  p.victim = "cheapest";
  return p;
}

pc_sampling_params pc_sampling_params_default(void) noexcept {
  const SamplingParams s;
  pc_sampling_params p = {};
  p.struct_size = sizeof p;
  p.n = s.n;
  p.max_tokens = s.max_tokens;
  p.min_tokens = s.min_tokens;
  p.temperature = s.temperature;
  p.top_k = s.top_k;
  p.top_p = s.top_p;
  p.min_p = s.min_p;
  p.repetition_penalty = s.repetition_penalty;
  p.presence_penalty = s.presence_penalty;
  p.frequency_penalty = s.frequency_penalty;
  p.logprobs = s.logprobs.value_or(-1);
  p.prompt_logprobs = s.prompt_logprobs.value_or(-1);
  p.seed = s.seed;
  return p;
}

pc_status pc_plan_memory(const char* container_path, const pc_engine_params* params, pc_memory_plan* plan) noexcept {
  return guarded([&] {
    require(container_path, "container_path");
    require(plan, "plan");
    const ModelFile file(container_path);
    *plan = view_of(plan_memory(file.description(), config_of(params)));
  });
}

pc_status pc_engine_open(const char* container_path, const pc_engine_params* params, pc_engine** engine) noexcept {
  return guarded([&] {
    require(container_path, "container_path");
    require(engine, "engine");
    const EngineConfig config = config_of(params);
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

pc_status pc_engine_memory_plan(const pc_engine* engine, pc_memory_plan* plan) noexcept {
  return guarded([&] {
    require(engine, "engine");
    require(plan, "plan");
    *plan = view_of(engine->engine.memory_plan());
  });
}

pc_status pc_engine_vocab_size(const pc_engine* engine, int32_t* vocab_size) noexcept {
  return guarded([&] {
    require(engine, "engine");
    require(vocab_size, "vocab_size");
    *vocab_size = engine->engine.model().vocab_size;
  });
}

pc_status pc_engine_stat(const pc_engine* engine, const char* key, double* value) noexcept {
  return guarded([&] {
    require(engine, "engine");
    require(key, "key");
    require(value, "value");
    const auto stats = engine->engine.stats();
    const auto it = stats.find(key);
    if (it == stats.end()) {
      std::string known;
      for (const auto& [name, number] : stats) known += (known.empty() ? "" : ", ") + name;
      throw InvalidArgument(str("no counter is named '", key, "'; there are ", known));
    }
    *value = it->second;
  });
}

pc_status pc_engine_clear_prefix_cache(pc_engine* engine) noexcept {
  return guarded([&] {
    require(engine, "engine");
    engine->engine.clear_prefix_cache();
  });
}

pc_status pc_engine_submit(pc_engine* engine, const int32_t* prompt, size_t prompt_length,
                           const pc_sampling_params* params, uint64_t* request) noexcept {
  return guarded([&] {
    require(engine, "engine");
    require(request, "request");
    *request = raw(engine->engine.submit(request_of(prompt, prompt_length, params)));
  });
}

pc_status pc_engine_abort(pc_engine* engine, uint64_t request) noexcept {
  return guarded([&] {
    require(engine, "engine");
    engine->engine.abort(RequestId{request});
  });
}

pc_status pc_engine_busy(const pc_engine* engine, int32_t* busy) noexcept {
  return guarded([&] {
    require(engine, "engine");
    require(busy, "busy");
    *busy = engine->engine.busy() ? 1 : 0;
  });
}

pc_status pc_engine_wait(pc_engine* engine, double timeout, pc_outputs** outputs) noexcept {
  return guarded([&] {
    require(engine, "engine");
    require(outputs, "outputs");
    *outputs = std::make_unique<pc_outputs>(engine->engine.wait(timeout)).release();
  });
}
