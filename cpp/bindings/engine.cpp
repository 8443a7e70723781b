#include "pagedcore/engine.hpp"

#include <nanobind/ndarray.h>

#include <algorithm>
#include <list>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "bindings/bindings.hpp"
#include "bindings/engine_handle.hpp"
#include "bindings/memory_view.hpp"
#include "bindings/records.hpp"
#include "bindings/weights.hpp"

namespace pagedcore::bindings {
namespace {

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

/// Weights of which only the types are known.
class WeightTypes final : public WeightSource {
 public:
  explicit WeightTypes(const std::map<std::string, std::string>& types) {
    for (const auto& [name, type] : types) types_.emplace(name, dtype_from_name(type));
  }
  bool has(std::string_view name) const override { return types_.find(name) != types_.end(); }
  HostTensor get(std::string_view name) const override { throw Corrupt(str("nothing is known of ", name, "'s data")); }
  std::optional<DType> type_of(std::string_view name) const override {
    const auto found = types_.find(name);
    return found == types_.end() ? std::nullopt : std::optional(found->second);
  }

 private:
  std::map<std::string, DType, std::less<>> types_;
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

/// The tokens of a list, or of an array of 32-bit integers, which is copied as it lies.
std::vector<TokenId> tokens_of(const char* name, nb::handle prompt) {
  nb::ndarray<const TokenId, nb::ndim<1>, nb::c_contig, nb::device::cpu> array;
  if (nb::try_cast(prompt, array, /* convert = */ false)) return {array.data(), array.data() + array.size()};
  std::vector<TokenId> tokens;
  from_python(Facts{name, {}}, prompt, tokens);
  return tokens;
}

void set_params(nb::handle params, EngineRequest& request) {
  if (nb::isinstance<BeamSearchParams>(params)) {
    request.beam = *nb::inst_ptr<BeamSearchParams>(params);
  } else if (nb::isinstance<SamplingParams>(params)) {
    request.sampling = *nb::inst_ptr<SamplingParams>(params);
  } else if (nb::isinstance<EmbeddingParams>(params)) {
    request.embedding = *nb::inst_ptr<EmbeddingParams>(params);
  } else {
    refuse("params", params, "SamplingParams, BeamSearchParams or EmbeddingParams");
  }
}

void set_constraint(nb::handle constraint, EngineRequest& request) {
  if (constraint.is_none()) return;
  if (!nb::isinstance<ConstraintHandle>(constraint)) refuse("constraint", constraint, "a Constraint, or None");
  request.constraint = nb::inst_ptr<ConstraintHandle>(constraint)->constraint;
}

/// What requests have besides their prompt: one for all, or one for each.
struct Given {
  nb::handle params, options, stream, constraint;
};

EngineRequest request_of(const char* name, nb::handle prompt, const Given& given, QueueId queue) {
  take_exception_memory_once();
  EngineRequest request;
  request.prompt = tokens_of(name, prompt);
  set_params(given.params, request);
  from_python(Facts{"options", {}}, given.options, request.options);
  from_python(Facts{"stream", {}}, given.stream, request.stream);
  set_constraint(given.constraint, request);
  request.queue = queue;
  return request;
}

/// One for all, or one for each.
class OneOrEach {
 public:
  OneOrEach(const char* name, nb::handle values, std::size_t requests) : values_(values) {
    if (!PyList_Check(values.ptr()) && !PyTuple_Check(values.ptr())) return;
    each_ = nb::steal(PySequence_List(values.ptr()));
    if (!each_.is_valid()) throw nb::python_error();
    const auto count = static_cast<std::size_t>(PyList_Size(each_.ptr()));
    if (count != requests)
      throw InvalidArgument(str(count, " ", name, " for ", requests, " prompts: give one, or one for each"));
  }
  nb::handle operator[](std::size_t i) const {
    return each_.is_valid() ? nb::handle(PyList_GetItem(each_.ptr(), static_cast<Py_ssize_t>(i))) : values_;
  }

 private:
  nb::handle values_;
  nb::object each_;
};

std::vector<RequestId> submit_all(EngineHandle& self, const std::vector<nb::object>& prompts, nb::handle params,
                                  nb::handle options, nb::handle stream, QueueId queue, nb::handle constraint) {
  const OneOrEach of_params("params", params, prompts.size()), of_options("options", options, prompts.size()),
      of_stream("stream", stream, prompts.size()), of_constraint("constraints", constraint, prompts.size());
  std::vector<EngineRequest> requests;
  requests.reserve(prompts.size());
  for (std::size_t i = 0; i < prompts.size(); ++i)
    requests.push_back(request_of(str("request ", i, ": prompt").c_str(), prompts[i],
                                  {of_params[i], of_options[i], of_stream[i], of_constraint[i]}, queue));
  const ReleasedGil released;
  return self.engine->submit_all(std::move(requests));
}

RequestId submit(EngineHandle& self, nb::handle prompt, nb::handle params, nb::handle options, nb::handle stream,
                 QueueId queue, nb::handle constraint) {
  EngineRequest request = request_of("prompt", prompt, {params, options, stream, constraint}, queue);
  const ReleasedGil released;
  return self.engine->submit(std::move(request));
}

void validate_request(const EngineHandle& self, nb::handle prompt, nb::handle params, nb::handle constraint) {
  EngineRequest request;
  request.prompt = tokens_of("prompt", prompt);
  set_params(params, request);
  set_constraint(constraint, request);
  self.engine->validate(request);
}

/// A finaliser may call it at any point of any thread: it keeps the GIL and never waits.
void abort_request(EngineHandle& self, nb::handle id) {
  take_exception_memory_once();
  if (nb::isinstance<nb::str>(id)) {
    std::string name;
    from_python(Facts{"id", {}}, id, name);
    return self.engine->abort(name);
  }
  std::uint64_t number = 0;
  from_python(Facts{"id", {}}, id, number);
  self.engine->abort(RequestId{number});
}

/// Outputs as Python's objects. First the objects, whose memory may be short, then what they hold, which is moved: none
/// is lost. Those for which there was no object stay.
nb::object delivered(std::vector<EngineOutput>& outputs) {
  nb::object list = nb::steal(PyList_New(static_cast<Py_ssize_t>(outputs.size())));
  if (!list.is_valid()) throw nb::python_error();
  std::size_t made = 0;
  for (; made < outputs.size(); ++made) {
    nb::object object = nb::inst_alloc(nb::type<EngineOutput>());
    if (!object.is_valid() && made == 0) throw nb::python_error();
    if (!object.is_valid()) break;
    PyList_SetItem(list.ptr(), static_cast<Py_ssize_t>(made), object.release().ptr());
  }
  PyErr_Clear();
  const auto all = static_cast<Py_ssize_t>(outputs.size());
  if (made < outputs.size() && PyList_SetSlice(list.ptr(), static_cast<Py_ssize_t>(made), all, nullptr) != 0)
    throw nb::python_error();
  for (std::size_t i = 0; i < made; ++i) {
    const nb::handle object = PyList_GetItem(list.ptr(), static_cast<Py_ssize_t>(i));
    new (nb::inst_ptr<EngineOutput>(object)) EngineOutput(std::move(outputs[i]));
    nb::inst_mark_ready(object);
  }
  outputs.erase(outputs.begin(), outputs.begin() + static_cast<std::ptrdiff_t>(made));
  return list;
}

/// In slices, so that Ctrl-C interrupts a long wait. Where it does not wait it keeps the GIL, which the engine's thread
/// never takes: an event loop would otherwise stand behind every thread that computes.
nb::object wait(EngineHandle& self, double timeout, QueueId queue) {
  take_exception_memory_once();
  std::list<EngineHandle::Taken> taken;
  const auto left = std::ranges::find(self.undelivered, queue, &EngineHandle::Taken::queue);
  if (left != self.undelivered.end()) {
    taken.splice(taken.end(), self.undelivered, left);
  } else {
    taken.emplace_back().queue = queue;
  }
  std::vector<EngineOutput>& outputs = taken.front().outputs;
  for (; outputs.empty();) {
    if (timeout > 0) {
      const ReleasedGil released;
      outputs = self.engine->wait(std::min(timeout, kSlice), queue);
    } else {
      outputs = self.engine->wait(timeout, queue);
    }
    timeout -= kSlice;
    if (!(timeout > 0)) break;
    if (outputs.empty() && PyErr_CheckSignals() != 0) throw nb::python_error();
  }
  const auto keep = [&] {
    if (!outputs.empty()) self.undelivered.splice(self.undelivered.begin(), taken);
  };
  try {
    nb::object list = delivered(outputs);
    keep();
    return list;
  } catch (...) {
    keep();
    throw;
  }
}

void bind_config(nb::module_& m) {
  Record<RequestOptions>(m, "RequestOptions", "What every kind of request may say besides its prompt.");
  Record<EngineConfig>(m, "EngineConfig", "All options of an engine, flat; None chooses.");
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
  m.def(
      "plan_memory",
      [](const ModelDescription& model, const EngineConfig& config, std::size_t device_memory,
         const std::map<std::string, std::string>& weight_types) {
        const WeightTypes types(weight_types);
        return plan_memory(model, config, device_memory, &types);
      },
      "model"_a, "config"_a = EngineConfig{}, "device_memory"_a = 0, "weight_types"_a = nb::dict(),
      nb::sig("def plan_memory(model: ModelDescription, config: EngineConfig = ..., device_memory: int = 0, "
              "weight_types: collections.abc.Mapping[str, str] = ...) -> MemoryPlan"),
      "What an engine would allocate; allocates nothing. device_memory: bytes that are free on the device, which "
      "need not be there then; 0: the device is asked. weight_types: the element types of weights by canonical name, "
      "whose block formats may be kept; those left out count in the compute type.");
}

void bind_output(nb::module_& m) {
  Record<EmbeddingParams>(m, "EmbeddingParams", "What is asked of a text instead of more of it.");
  Record<EngineOutput>(m, "EngineOutput", "News of one sample.", Fields::fixed)
      .python()
      .def(
          "embedding_bytes",
          [](nb::handle self) { return bytes_of(nb::cast<const EngineOutput&>(self).embedding, self); },
          nb::sig("def embedding_bytes(self) -> memoryview"),
          "The f32 numbers of `embedding`, not copied; they keep the output alive.");
}

void bind_engine_class(nb::module_& m) {
  using E = EngineHandle;
  nb::class_<E> engine(m, "Engine",
                       "Plans, runs and commits steps on a native thread. Safe to use from several threads.",
                       nb::is_weak_referenceable());
  engine
      .def("__init__", &construct<KeptWeights>, "model"_a, "weights"_a, "config"_a = EngineConfig{},
           "progress"_a = nb::none(),
           "progress(number) is called before each weight, with how many were read before it.")
      .def("__init__", &construct<ModelFile>, "model"_a, "weights"_a, "config"_a = EngineConfig{},
           "progress"_a = nb::none())
      .def("submit", &submit, "prompt"_a, "params"_a = SamplingParams{}, "options"_a = RequestOptions{},
           "stream"_a = false, "queue"_a = 0, "constraint"_a = nb::none(),
           nb::sig("def submit(self, prompt: collections.abc.Sequence[int] | numpy.typing.NDArray[numpy.int32], "
                   "params: SamplingParams | BeamSearchParams | EmbeddingParams = ..., options: RequestOptions = ..., "
                   "stream: bool = False, queue: int = 0, constraint: Constraint | None = None) -> int"),
           "Returns the request's id. Raises InvalidArgument for a request that could never run.")
      .def("submit_all", &submit_all, "prompts"_a, "params"_a = SamplingParams{}, "options"_a = RequestOptions{},
           "stream"_a = false, "queue"_a = 0, "constraint"_a = nb::none(),
           nb::sig(
               "def submit_all(self, prompts: collections.abc.Sequence[collections.abc.Sequence[int] | "
               "numpy.typing.NDArray[numpy.int32]], params: SamplingParams | BeamSearchParams | "
               "collections.abc.Sequence[SamplingParams | BeamSearchParams | EmbeddingParams] = ..., options: "
               "RequestOptions | "
               "collections.abc.Sequence[RequestOptions] = ..., stream: bool | collections.abc.Sequence[bool] = "
               "False, queue: int = 0, constraint: Constraint | collections.abc.Sequence[Constraint | None] | None = "
               "None) -> list[int]"),
           "Checks all requests, then submits all; when one is refused, none is. Returns their ids.")
      .def("validate", &validate_request, "prompt"_a, "params"_a = SamplingParams{}, "constraint"_a = nb::none(),
           nb::sig("def validate(self, prompt: collections.abc.Sequence[int] | numpy.typing.NDArray[numpy.int32], "
                   "params: SamplingParams | BeamSearchParams | EmbeddingParams = ..., constraint: Constraint | None = "
                   "None) -> None"),
           "The checks of submit() alone.")
      .def("abort", &abort_request, "id"_a, nb::sig("def abort(self, id: int | str) -> None"),
           "Ends a request, by its number or its request_id. One that is unknown or has ended is ignored.")
      .def("wait", &wait, "timeout"_a, "queue"_a = 0,
           nb::sig("def wait(self, timeout: float, queue: int = 0) -> list[EngineOutput]"),
           "All outputs of a queue that are ready, waiting at most `timeout` seconds for the first.")
      .def_prop_ro(
          "busy",
          [](const E& self) {
            if (!self.undelivered.empty()) return true;
            const ReleasedGil released;
            return self.engine->busy();
          },
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
          [](E& self, const std::string& name, std::vector<TokenId> tokens, std::uint64_t salt, bool shared,
             QueueId queue) { return self.engine->register_prefix(name, std::move(tokens), salt, shared, queue); },
          "name"_a, "tokens"_a, "salt"_a = 0, "shared"_a = false, "queue"_a = 0, release_gil(),
          "Computes a prefix and keeps its blocks; returns the id of the request that does so. Requests of the same "
          "salt can name it, or, when it is shared, those of every salt.")
      .def(
          "release_prefix",
          [](E& self, const std::string& name, std::uint64_t salt) { self.engine->release_prefix(name, salt); },
          "name"_a, "salt"_a = 0, release_gil())
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
  bind_serving(engine);
}

}  // namespace

void bind_engine(nb::module_& m) {
  bind_config(m);
  bind_constraint(m);
  bind_memory_plan(m);
  bind_output(m);
  bind_snapshot(m);
  bind_engine_class(m);
  nb::module_::import_("atexit").attr("register")(nb::cpp_function(close_all));
}

}  // namespace pagedcore::bindings
