#include "pagedcore/devices.hpp"

#include <memory>
#include <string>

#include "bindings/bindings.hpp"
#include "bindings/names.hpp"
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
  Record<CudaDevice>(m, "CudaDevice", "A GPU as its driver describes it.")
      .field("name", &CudaDevice::name)
      .field("compute_major", &CudaDevice::compute_major)
      .field("compute_minor", &CudaDevice::compute_minor)
      .field("multiprocessors", &CudaDevice::multiprocessors)
      .field("memory", &CudaDevice::memory, "Bytes.")
      .field("memory_rate", &CudaDevice::memory_rate, "Bytes/s at most; 0: unknown.")
      .field("matmul_rate", &CudaDevice::matmul_rate, "FLOP/s at most, of dense 16-bit products; 0: unknown.")
      .field("problem", &CudaDevice::problem, "Why it cannot be used; empty: it can.");
  Record<CudaStatus>(m, "CudaStatus", "The CUDA backend on this machine.")
      .field("plugin", &CudaStatus::plugin, "Path of libpagedcore_cuda.so, whether it is there or not.")
      .field("plugin_version", &CudaStatus::plugin_version, "Empty: it could not be opened.")
      .field("runtime_version", &CudaStatus::runtime_version, "CUDA that it was built with, 13000 for 13.0.")
      .field("driver_version", &CudaStatus::driver_version, "CUDA that the driver serves; 0: there is no driver.")
      .field("devices", &CudaStatus::devices)
      .field("problem", &CudaStatus::problem, "Why no GPU can be used; empty: one of them can.");
  m.def("cuda_status", &cuda_status, "plugin"_a = "", release_gil(), "Looks for the plugin, driver and GPUs.");
  m.def(
      "describe_device", [](const EngineConfig& config) { return make(config)->describe(); },
      "config"_a = EngineConfig{}, release_gil(),
      "Device, instruction set, compute type and threads; raises what an engine on it would.");
}

void bind_selftest(nb::module_& m) {
  static constexpr EnumNames<SelftestOutcome, 3> kOutcomes{{"passed", "failed", "unsupported"}};
  Record<SelftestCheck>(m, "SelftestCheck", "One operation of a device against the CPU.")
      .field("operation", &SelftestCheck::operation)
      .field("what", &SelftestCheck::what)
      .field("error", &SelftestCheck::error, "Largest |device - reference| / max(1, |reference|).")
      .field("tolerance", &SelftestCheck::tolerance, "0: all bits must be the same.")
      .field("outcome", &SelftestCheck::outcome, kOutcomes, "'passed', 'failed' or 'unsupported'.")
      .field("problem", &SelftestCheck::problem, "What was thrown; empty: nothing.")
      .field("note", &SelftestCheck::note, "What else is worth knowing; empty: nothing.");
  Record<SelftestRate>(m, "SelftestRate", "What one call cost.")
      .field("operation", &SelftestRate::operation)
      .field("what", &SelftestRate::what)
      .field("seconds", &SelftestRate::seconds)
      .field("bytes", &SelftestRate::bytes, "That it has to move.")
      .field("flops", &SelftestRate::flops, "Floating-point operations that it has to do.")
      .field("host_link", &SelftestRate::host_link, "The bytes go to or from host memory.");
  m.def(
      "selftest_checks",
      [](const EngineConfig& config, bool quick) {
        const auto reference = make_cpu_backend({config.cpu.threads, DType::f32, "portable"});
        return selftest_checks(*make(config), *reference, quick);
      },
      "config"_a = EngineConfig{}, "quick"_a = false, release_gil(),
      "Checks every operation of the device against the CPU in f32, with portable code.");
  m.def(
      "selftest_rates",
      [](const EngineConfig& config, std::size_t bytes, std::int32_t rows, double seconds) {
        return selftest_rates(*make(config), {bytes, rows, seconds});
      },
      "config"_a, "bytes"_a, "rows"_a, "seconds"_a, release_gil(), "Measures copies, swaps, products and attention.");
}

}  // namespace

void bind_devices(nb::module_& m) {
  bind_status(m);
  bind_selftest(m);
}

}  // namespace pagedcore::bindings
