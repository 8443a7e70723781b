#include "pagedcore/engine.hpp"

#include <nanobind/ndarray.h>

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "bindings/bindings.hpp"
#include "bindings/names.hpp"
#include "bindings/records.hpp"
#include "bindings/weights.hpp"

namespace pagedcore::bindings {
namespace {

/// The engine thread never needs the GIL, so that joining it cannot deadlock. Closing takes up to a step: the other
/// Python threads run meanwhile.
struct EngineHandle {
  std::shared_ptr<Engine> engine;

  explicit EngineHandle(std::shared_ptr<Engine> running) : engine(std::move(running)) {}
  EngineHandle(const EngineHandle&) = delete;
  EngineHandle& operator=(const EngineHandle&) = delete;
  ~EngineHandle() {
    const ReleasedGil released;
    engine.reset();
  }
};

/// Engines that live; the GIL guards it.
std::vector<std::weak_ptr<Engine>>& live_engines() {
  static std::vector<std::weak_ptr<Engine>> engines;
  return engines;
}

/// Runs before the interpreter is finalized: no engine thread may outlive the static objects of the process.
void close_all() {
  finalizing_thread = std::this_thread::get_id();
  for (const auto& entry : std::exchange(live_engines(), {}))
    if (auto engine = entry.lock()) {
      const ReleasedGil released;
      engine->close();
      engine.reset();
    }
}

/// The weights as a source that no Python thread changes. A copy of a map refers to the same tensors.
const ModelFile& snapshot(const ModelFile& file) { return file; }
WeightMap snapshot(const KeptWeights& weights) { return weights.map; }

template <class Weights>
void construct(EngineHandle* self, const ModelDescription& model, const Weights& weights, const EngineConfig& config) {
  decltype(auto) source = snapshot(weights);
  std::shared_ptr<Engine> engine;
  {
    const ReleasedGil released;
    engine = std::make_shared<Engine>(model, source, config);
  }
  auto& engines = live_engines();
  std::erase_if(engines, [](const auto& entry) { return entry.expired(); });
  engines.push_back(engine);
  new (self) EngineHandle(std::move(engine));
}

using TokenArray = nb::ndarray<const TokenId, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

RequestId submit(EngineHandle& self, std::vector<TokenId> prompt, const SamplingParams& sampling, std::uint64_t salt,
                 bool stream, std::string prefix, std::int32_t priority, std::uint64_t tenant) {
  EngineRequest request{std::move(prompt), sampling, {}, {std::move(prefix), salt, priority, tenant}, stream};
  const ReleasedGil released;
  return self.engine->submit(std::move(request));
}

RequestId submit_beams(EngineHandle& self, std::vector<TokenId> prompt, const BeamSearchParams& beam,
                       std::uint64_t salt, bool stream, std::string prefix, std::int32_t priority,
                       std::uint64_t tenant) {
  EngineRequest request{std::move(prompt), {}, beam, {std::move(prefix), salt, priority, tenant}, stream};
  const ReleasedGil released;
  return self.engine->submit(std::move(request));
}

/// In slices, so that Ctrl-C interrupts a long wait.
std::vector<EngineOutput> wait(EngineHandle& self, double timeout) {
  constexpr double kSlice = 0.1;  // seconds
  for (;;) {
    std::vector<EngineOutput> outputs;
    {
      const ReleasedGil released;
      outputs = self.engine->wait(std::min(timeout, kSlice));
    }
    timeout -= kSlice;
    if (!outputs.empty() || timeout <= 0) return outputs;
    if (PyErr_CheckSignals() != 0) throw nb::python_error();
  }
}

void bind_config(nb::module_& m) {
  Record<CpuOptions>(m, "CpuOptions", "How the CPU backend computes.").listed();
  Record<CudaOptions>(m, "CudaOptions", "How the CUDA backend computes.")
      .field("device", &CudaOptions::device, "Index of the GPU; EngineConfig.device names it for an engine.")
      .listed();
  Record<RequestOptions>(m, "RequestOptions", "What every kind of request may say besides its prompt.").listed();
  Record<EngineConfig>(m, "EngineConfig", "All options of an engine, flat; None chooses.").listed();
  m.def(
      "cpu_isas",
      [] {
        const auto isas = cpu_isas();
        return std::vector<std::string>(isas.begin(), isas.end());
      },
      "Instruction sets that this CPU can run, best last.");
  m.def(
      "attention_seconds",
      [](const CpuOptions& cpu, const ModelDescription& model, int block_size, int batch, int context, int repeats) {
        const auto backend = make_cpu_backend(cpu);
        const KvShape kv{model.num_layers, model.attention.num_kv_heads, model.attention.head_dim, block_size,
                         cpu.dtype};
        return attention_seconds(*backend, {kv, model.attention.num_heads, batch, context, repeats});
      },
      "cpu"_a, "model"_a, "block_size"_a, "batch"_a, "context"_a, "repeats"_a = 20, release_gil(),
      "Seconds that attention takes in one layer for a batch of decoding sequences, whose blocks lie scattered.");
}

void bind_memory_plan(nb::module_& m) {
  using P = MemoryPlan;
  Record<P>(m, "MemoryPlan", "Every byte the engine will hold, by purpose.")
      .field("weights", &P::weights)
      .field("activations", &P::activations)
      .field("kv_block", &P::kv_block, "Bytes of one block.")
      .field("num_blocks", &P::num_blocks)
      .field("block_size", &P::block_size)
      .field("max_context", &P::max_context)
      .field("swap", &P::swap, "Host memory of the swap space.")
      .field("swap_file", &P::swap_file, "Bytes of the swap file; not memory.")
      .field("num_swap_blocks", &P::num_swap_blocks, "Of both together.")
      .field("windows", &P::windows, "Of the groups of layers; 0: full context.")
      .python()
      .def_prop_ro("kv_cache", &P::kv_cache, "Bytes of all blocks.")
      .def_prop_ro("total", &P::total, "Bytes.")
      .def_prop_ro("kv_tokens", &P::kv_tokens, "Tokens that all blocks hold.");
  m.def("plan_memory", &plan_memory, "model"_a, "config"_a = EngineConfig{},
        "What an engine would allocate; allocates nothing.");
}

void bind_output(nb::module_& m) {
  using O = EngineOutput;
  Record<O>(m, "EngineOutput", "News of one sample.")
      .field("request", &O::request)
      .field("sample", &O::sample)
      .field("tokens", &O::tokens, "With stream, those since the last news of this sample, else all.")
      .field("logprobs", &O::logprobs, "One per token, when asked for.")
      .field("prompt_logprobs", &O::prompt_logprobs, "With the first news of sample 0.")
      .field("finish", &O::finish, kFinishReasons, "'none', 'stop', 'length', 'abort' or 'error'.")
      .field("score", &O::score, "Of a hypothesis of a beam search.")
      .field("error", &O::error, "Why, when finish is 'error'.")
      .field("cached_tokens", &O::cached_tokens, "Prompt tokens taken from the prefix cache.")
      .field("time", &O::time, "Seconds on the engine's steady clock.")
      .field("last", &O::last, "Nothing more will come for this request.");
}

void bind_engine_class(nb::module_& m) {
  using E = EngineHandle;
  nb::class_<E>(m, "Engine", "Plans, runs and commits steps on a native thread. Safe to use from several threads.",
                nb::is_weak_referenceable())
      .def("__init__", &construct<KeptWeights>, "model"_a, "weights"_a, "config"_a = EngineConfig{})
      .def("__init__", &construct<ModelFile>, "model"_a, "weights"_a, "config"_a = EngineConfig{})
      .def(
          "submit",
          [](E& self, const TokenArray& prompt, const SamplingParams& params, std::uint64_t salt, bool stream,
             std::string prefix, std::int32_t priority, std::uint64_t tenant) {
            return submit(self, {prompt.data(), prompt.data() + prompt.size()}, params, salt, stream, std::move(prefix),
                          priority, tenant);
          },
          "prompt"_a.noconvert(), "params"_a = SamplingParams{}, "salt"_a = 0, "stream"_a = false, "prefix"_a = "",
          "priority"_a = 0, "tenant"_a = 0)
      .def("submit", &submit, "prompt"_a, "params"_a = SamplingParams{}, "salt"_a = 0, "stream"_a = false,
           "prefix"_a = "", "priority"_a = 0, "tenant"_a = 0,
           "Returns the request's id. Raises InvalidArgument for a request that could never run.")
      .def("submit", &submit_beams, "prompt"_a, "params"_a, "salt"_a = 0, "stream"_a = false, "prefix"_a = "",
           "priority"_a = 0, "tenant"_a = 0)
      .def(
          "validate",
          [](const E& self, std::vector<TokenId> prompt, const BeamSearchParams& beam) {
            EngineRequest request;
            request.prompt = std::move(prompt);
            request.beam = beam;
            self.engine->validate(request);
          },
          "prompt"_a, "params"_a)
      .def(
          "validate",
          [](const E& self, std::vector<TokenId> prompt, const SamplingParams& params) {
            EngineRequest request;
            request.prompt = std::move(prompt);
            request.sampling = params;
            self.engine->validate(request);
          },
          "prompt"_a, "params"_a = SamplingParams{}, "The checks of submit() alone.")
      .def(
          "abort", [](E& self, RequestId id) { self.engine->abort(id); }, "id"_a, release_gil())
      .def("wait", &wait, "timeout"_a, "All outputs that are ready, waiting at most `timeout` seconds for the first.")
      .def_prop_ro(
          "busy", [](const E& self) { return self.engine->busy(); }, release_gil(),
          "True while a submitted request has not delivered its last output.")
      .def(
          "stats", [](const E& self) { return self.engine->stats(); }, release_gil())
      .def_prop_ro("memory_plan", [](const E& self) -> MemoryPlan { return self.engine->memory_plan(); })
      .def_prop_ro("model", [](const E& self) -> ModelDescription { return self.engine->model(); })
      .def(
          "describe", [](const E& self) { return self.engine->describe(); }, release_gil())
      .def(
          "clear_prefix_cache", [](E& self) { self.engine->clear_prefix_cache(); }, release_gil())
      .def(
          "register_prefix",
          [](E& self, const std::string& name, std::vector<TokenId> tokens, std::uint64_t salt) {
            return self.engine->register_prefix(name, std::move(tokens), salt);
          },
          "name"_a, "tokens"_a, "salt"_a = 0, release_gil(),
          "Computes a prefix and keeps its blocks; returns the id of the request that does so.")
      .def(
          "release_prefix", [](E& self, const std::string& name) { self.engine->release_prefix(name); }, "name"_a,
          release_gil())
      .def(
          "cache_events", [](E& self) { return self.engine->cache_events(); }, release_gil(),
          "News of the prefix cache since the last call.")
      .def(
          "force_preemption",
          [](E& self, std::uint32_t period, std::string_view mode) {
            self.engine->force_preemption(period, kPreemptionModes.parse("mode", mode));
          },
          "period"_a, "mode"_a = "recompute", release_gil(),
          "Testing aid: preempt before every period-th step; 0 turns it off.")
      .def(
          "close", [](E& self) { self.engine->close(); }, release_gil(), "Ends all requests, frees all memory.");
}

}  // namespace

void bind_engine(nb::module_& m) {
  bind_config(m);
  bind_memory_plan(m);
  bind_output(m);
  bind_engine_class(m);
  nb::module_::import_("atexit").attr("register")(nb::cpp_function(close_all));
}

}  // namespace pagedcore::bindings
