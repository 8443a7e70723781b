#include "pagedcore/devices.hpp"

#include <memory>
#include <string>

#include "bindings/bindings.hpp"
#include "bindings/records.hpp"
#include "pagedcore/engine.hpp"
#include "pagedcore/selftest.hpp"

namespace pagedcore::bindings {
namespace {

std::unique_ptr<Backend> make(const EngineConfig& config) {
  const DeviceId id = parse_device(config.device);
  if (id.kind == DeviceKind::cpu) return make_cpu_backend(config.cpu);
  CudaOptions cuda = config.cuda;
  cuda.device = id.index;
  return make_cuda_backend(cuda);
}

void bind_status(nb::module_& m) {
  Record<CudaDevice>(m, "CudaDevice", "A GPU as its driver describes it.");
  Record<CudaStatus>(m, "CudaStatus", "The CUDA backend on this machine.");
  m.def("cuda_status", &cuda_status, "plugin"_a = "", release_gil(), "Looks for the plugin, driver and GPUs.");
  m.def(
      "describe_device", [](EngineConfig config) { return make(config)->describe(); }, "config"_a = EngineConfig{},
      release_gil(), "Device, instruction set, compute type and threads; raises what an engine on it would.");
}

void bind_selftest(nb::module_& m) {
  Record<SelftestCheck>(m, "SelftestCheck", "One operation of a device against the CPU.");
  Record<SelftestRate>(m, "SelftestRate", "What one call cost.");
  m.def(
      "selftest_checks",
      [](EngineConfig config, bool quick, const nb::object& progress) {
        const ReleasedGil released;
        const auto reference = make_cpu_backend({config.cpu.threads, DType::f32, "portable"});
        return selftest_checks(*make(config), *reference, quick, [&] { tell(progress); });
      },
      "config"_a = EngineConfig{}, "quick"_a = false, "progress"_a = nb::none(),
      "Checks every operation of the device against the CPU in f32, with portable code. progress() is called after "
      "each.");
  m.def(
      "selftest_rates",
      [](EngineConfig config, std::size_t bytes, std::int32_t rows, double seconds, const nb::object& progress) {
        const ReleasedGil released;
        return selftest_rates(*make(config), {bytes, rows, seconds}, [&] { tell(progress); });
      },
      "config"_a, "bytes"_a, "rows"_a, "seconds"_a, "progress"_a = nb::none(),
      "Measures copies, swaps, products and attention. progress() is called after each.");
}

}  // namespace

void bind_devices(nb::module_& m) {
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
        const KvShape kv{model.num_layers, attention.num_kv_heads, attention.head_dim, block_size,
                         backend->compute_dtype()};
        return attention_seconds(*backend, {kv, attention.num_heads, batch, context, repeats});
      },
      "config"_a, "model"_a, "block_size"_a, "batch"_a, "context"_a, "repeats"_a = 20, release_gil(),
      "Seconds that attention takes on the CPU in one layer for a batch of decoding sequences, whose blocks lie "
      "scattered.");
  bind_status(m);
  bind_selftest(m);
}

}  // namespace pagedcore::bindings
