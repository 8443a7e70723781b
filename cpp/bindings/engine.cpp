#include "pagedcore/engine.hpp"

#include <nanobind/ndarray.h>
#include <nanobind/stl/variant.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <utility>
#include <variant>
#include <vector>

#include "bindings/bindings.hpp"
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

/// Tells a Python function, before each tensor, how many were read before it.
class ToldWeights final : public WeightSource {
 public:
  ToldWeights(const WeightSource& source, const nb::object& told) : source_(source), told_(told) {}
  bool has(std::string_view name) const override { return source_.has(name); }
  HostTensor get(std::string_view name) const override {
    const HostTensor tensor = source_.get(name);
    tell(told_, done_++);
    return tensor;
  }

 private:
  const WeightSource& source_;
  const nb::object& told_;
  mutable std::atomic<std::size_t> done_{0};
};

template <class Weights>
void construct(EngineHandle* self, const ModelDescription& model, const Weights& weights, const EngineConfig& config,
               const nb::object& progress) {
  // Copies: while the GIL is released other threads may change what they were made from.
  decltype(auto) source = snapshot(weights);
  const ModelDescription description = model;
  const EngineConfig options = config;
  std::shared_ptr<Engine> engine;
  {
    const ReleasedGil released;
    engine = std::make_shared<Engine>(description, ToldWeights(source, progress), options);
  }
  auto& engines = live_engines();
  std::erase_if(engines, [](const auto& entry) { return entry.expired(); });
  engines.push_back(engine);
  new (self) EngineHandle(std::move(engine));
}

using Params = std::variant<SamplingParams, BeamSearchParams>;

/// The tokens of a list, or of an array of 32-bit integers, which is copied as it lies.
std::vector<TokenId> tokens_of(const char* name, nb::handle prompt) {
  nb::ndarray<const TokenId, nb::ndim<1>, nb::c_contig, nb::device::cpu> array;
  if (nb::try_cast(prompt, array, /* convert = */ false)) return {array.data(), array.data() + array.size()};
  std::vector<TokenId> tokens;
  from_python(Facts{name, {}}, prompt, tokens);
  return tokens;
}

EngineRequest request_of(const char* name, nb::handle prompt, const Params& params, const RequestOptions& options,
                         bool stream) {
  EngineRequest request;
  request.prompt = tokens_of(name, prompt);
  request.options = options;
  request.stream = stream;
  if (const auto* beam = std::get_if<BeamSearchParams>(&params)) {
    request.beam = *beam;
  } else {
    request.sampling = std::get<SamplingParams>(params);
  }
  return request;
}

/// One for all, or one for each.
template <class T>
using OneOrEach = std::variant<T, std::vector<T>>;
template <class T>
T of_request(const OneOrEach<T>& values, std::size_t i) {
  const auto* each = std::get_if<std::vector<T>>(&values);
  return each != nullptr ? (*each)[i] : std::get<T>(values);
}
template <class T>
void check_number(const char* name, const OneOrEach<T>& values, std::size_t requests) {
  const auto* each = std::get_if<std::vector<T>>(&values);
  if (each != nullptr && each->size() != requests)
    throw InvalidArgument(str(each->size(), " ", name, " for ", requests, " prompts: give one, or one for each"));
}

std::vector<RequestId> submit_all(EngineHandle& self, const std::vector<nb::object>& prompts,
                                  const OneOrEach<Params>& params, const OneOrEach<RequestOptions>& options,
                                  const OneOrEach<bool>& stream) {
  check_number("params", params, prompts.size());
  check_number("options", options, prompts.size());
  check_number("stream", stream, prompts.size());
  std::vector<EngineRequest> requests;
  requests.reserve(prompts.size());
  for (std::size_t i = 0; i < prompts.size(); ++i)
    requests.push_back(request_of(str("request ", i, ": prompt").c_str(), prompts[i], of_request(params, i),
                                  of_request(options, i), of_request(stream, i)));
  const ReleasedGil released;
  return self.engine->submit_all(std::move(requests));
}

RequestId submit(EngineHandle& self, nb::handle prompt, const Params& params, const RequestOptions& options,
                 bool stream) {
  EngineRequest request = request_of("prompt", prompt, params, options, stream);
  const ReleasedGil released;
  return self.engine->submit(std::move(request));
}

void validate_request(const EngineHandle& self, nb::handle prompt, const Params& params) {
  self.engine->validate(request_of("prompt", prompt, params, {}, false));
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
  Record<RequestOptions>(m, "RequestOptions", "What every kind of request may say besides its prompt.");
  Record<EngineConfig>(m, "EngineConfig", "All options of an engine, flat; None chooses.");
  m.def(
      "cpu_isas",
      [] {
        const auto isas = cpu_isas();
        return std::vector<std::string>(isas.begin(), isas.end());
      },
      "Instruction sets that this CPU can run, best last.");
  m.def(
      "attention_seconds",
      [](EngineConfig config, ModelDescription model, int block_size, int batch, int context, int repeats) {
        const auto backend = make_cpu_backend(config.cpu);
        const AttentionDescription& attention = model.attention;
        const KvShape kv{model.num_layers, attention.num_kv_heads, attention.head_dim, block_size, config.cpu.dtype};
        return attention_seconds(*backend, {kv, attention.num_heads, batch, context, repeats});
      },
      "config"_a, "model"_a, "block_size"_a, "batch"_a, "context"_a, "repeats"_a = 20, release_gil(),
      "Seconds that attention takes on the CPU in one layer for a batch of decoding sequences, whose blocks lie "
      "scattered.");
}

void bind_memory_plan(nb::module_& m) {
  using P = MemoryPlan;
  Record<P>(m, "MemoryPlan", "Every byte the engine will hold, by purpose.")
      .python()
      .def_prop_ro("kv_cache", &P::kv_cache, "Bytes of all blocks.")
      .def_prop_ro("total", &P::total, "Bytes.")
      .def_prop_ro("kv_tokens", &P::kv_tokens, "Tokens that all blocks hold.");
  m.def("validate", nb::overload_cast<const EngineConfig&>(&validate), "config"_a,
        "Raises InvalidArgument for a value outside its range and for options that contradict each other.");
  m.def("plan_memory", &plan_memory, "model"_a, "config"_a = EngineConfig{}, "device_memory"_a = 0,
        "What an engine would allocate; allocates nothing. device_memory: bytes that are free on the device, which "
        "need not "
        "be there then; 0: the device is asked.");
}

void bind_output(nb::module_& m) { Record<EngineOutput>(m, "EngineOutput", "News of one sample."); }

void bind_engine_class(nb::module_& m) {
  using E = EngineHandle;
  nb::class_<E>(m, "Engine", "Plans, runs and commits steps on a native thread. Safe to use from several threads.",
                nb::is_weak_referenceable())
      .def("__init__", &construct<KeptWeights>, "model"_a, "weights"_a, "config"_a = EngineConfig{},
           "progress"_a = nb::none(),
           "progress(number) is called before each weight, with how many were read before it.")
      .def("__init__", &construct<ModelFile>, "model"_a, "weights"_a, "config"_a = EngineConfig{},
           "progress"_a = nb::none())
      .def("submit", &submit, "prompt"_a, "params"_a = SamplingParams{}, "options"_a = RequestOptions{},
           "stream"_a = false,
           nb::sig("def submit(self, prompt: collections.abc.Sequence[int] | numpy.typing.NDArray[numpy.int32], "
                   "params: SamplingParams | BeamSearchParams = ..., options: RequestOptions = ..., "
                   "stream: bool = False) -> int"),
           "Returns the request's id. Raises InvalidArgument for a request that could never run.")
      .def("submit_all", &submit_all, "prompts"_a, "params"_a = SamplingParams{}, "options"_a = RequestOptions{},
           "stream"_a = false,
           nb::sig("def submit_all(self, prompts: collections.abc.Sequence[collections.abc.Sequence[int] | "
                   "numpy.typing.NDArray[numpy.int32]], params: SamplingParams | BeamSearchParams | "
                   "collections.abc.Sequence[SamplingParams | BeamSearchParams] = ..., options: RequestOptions | "
                   "collections.abc.Sequence[RequestOptions] = ..., stream: bool | collections.abc.Sequence[bool] = "
                   "False) -> list[int]"),
           "Checks all requests, then submits all; when one is refused, none is. Returns their ids.")
      .def("validate", &validate_request, "prompt"_a, "params"_a = SamplingParams{},
           nb::sig("def validate(self, prompt: collections.abc.Sequence[int] | numpy.typing.NDArray[numpy.int32], "
                   "params: SamplingParams | BeamSearchParams = ...) -> None"),
           "The checks of submit() alone.")
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
          [](E& self, const std::string& name, std::vector<TokenId> tokens, std::uint64_t salt, bool shared) {
            return self.engine->register_prefix(name, std::move(tokens), salt, shared);
          },
          "name"_a, "tokens"_a, "salt"_a = 0, "shared"_a = false, release_gil(),
          "Computes a prefix and keeps its blocks; returns the id of the request that does so. Requests of the same "
          "salt can name it, or, when it is shared, those of every salt.")
      .def(
          "release_prefix",
          [](E& self, const std::string& name, std::uint64_t salt) { self.engine->release_prefix(name, salt); },
          "name"_a, "salt"_a = 0, release_gil())
      .def(
          "cache_events", [](E& self) { return self.engine->cache_events(); }, release_gil(),
          "News of the prefix cache since the last call.")
      .def(
          "force_preemption",
          [](E& self, std::uint32_t period, std::string_view mode) {
            self.engine->force_preemption(period, word<PreemptionMode>("mode", mode));
          },
          "period"_a, "mode"_a = "recompute", release_gil(),
          nb::sig(str("def force_preemption(self, period: int, mode: ", PythonType<PreemptionMode>::name(),
                      " = 'recompute') -> None")
                      .c_str()),
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
