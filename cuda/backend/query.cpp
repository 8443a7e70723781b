#include "backend/query.hpp"

#include <sstream>

#include "base/text.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore::cuda {
namespace {

constexpr int kOldestMajor = 8;  // sm_80: asynchronous copies, bf16 matrix instructions

std::string cuda_text(int version) { return str(version / 1000, ".", version % 1000 / 10); }

int driver_version() {
  int version = 0;
  return cudaDriverGetVersion(&version) == cudaSuccess ? version : 0;
}

/// 0: unknown.
int attribute(cudaDeviceAttr name, int index) {
  int value = 0;
  if (cudaDeviceGetAttribute(&value, name, index) == cudaSuccess) return value;
  static_cast<void>(cudaGetLastError());
  return 0;
}

/// Of one multiprocessor in one cycle: dense products of f16 or bf16 that add up in f32, two operations each, as the
/// data sheets of A100, A40 and L4, H100, B200 and RTX PRO 6000 come to by their clocks. GeForce cards do half of that.
int flops_per_cycle(int major, int minor) {
  switch (major) {
    case 8:
      return minor == 0 ? 2048 : 1024;
    case 9:
      return 4096;
    case 10:
      return 8192;
    case 12:
      return 1024;
    default:
      return 0;
  }
}

/// Empty: nothing, or there is no code for it at all.
std::string compilation_for(const cudaDeviceProp& properties) {
  if (code_for(properties.major, properties.minor, PAGEDCORE_CUDA_CODE) != Code::ptx) return "";
  const std::string capability = str(properties.major, ".", properties.minor);
  return str(
      "the plugin has no machine code for compute capability ", capability,
      ": the driver compiles its PTX when the backend is first opened, which takes seconds to minutes, and keeps the "
      "result in its cache (CUDA_CACHE_PATH); a build with -DPAGEDCORE_CUDA_ARCHITECTURES=",
      properties.major, properties.minor, "-real or all has it");
}

CudaDevice device_of(int index) {
  CudaDevice device;
  cudaDeviceProp properties{};
  if (const cudaError_t error = cudaGetDeviceProperties(&properties, index); error != cudaSuccess) {
    static_cast<void>(cudaGetLastError());
    device.problem = str("device cuda:", index, " does not answer: ", error_text(error));
    return device;
  }
  device.name = properties.name;
  device.compute_major = properties.major;
  device.compute_minor = properties.minor;
  device.multiprocessors = properties.multiProcessorCount;
  device.memory = properties.totalGlobalMem;
  constexpr double kHertz = 1e3, kBytesOfBit = 1.0 / 8.0, kTransfersOfCycle = 2.0;
  device.memory_rate = kHertz * attribute(cudaDevAttrMemoryClockRate, index) * kTransfersOfCycle *
                       attribute(cudaDevAttrGlobalMemoryBusWidth, index) * kBytesOfBit;
  device.matmul_rate = kHertz * attribute(cudaDevAttrClockRate, index) * properties.multiProcessorCount *
                       flops_per_cycle(properties.major, properties.minor);
  device.problem = why_unserved(index, properties);
  if (device.problem.empty()) device.compilation = compilation_for(properties);
  return device;
}

}  // namespace

std::string error_text(cudaError_t error) { return str(cudaGetErrorName(error), ": ", cudaGetErrorString(error)); }

int device_count() {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess) static_cast<void>(cudaGetLastError());
  const std::string beginning = "the CUDA backend is not available: ";
  switch (error) {
    case cudaSuccess:
      break;
    case cudaErrorInsufficientDriver: {
      const int driver = driver_version();
      const std::string found = driver == 0 ? str("this machine has no NVIDIA driver")
                                            : str("the NVIDIA driver serves CUDA ", cuda_text(driver));
      throw Unsupported(str(beginning, found, ", and it needs one for CUDA ", cuda_text(CUDART_VERSION), " (",
                            error_text(error), "); ", driver == 0 ? "install" : "update",
                            " the driver, or use device cpu"));
    }
    case cudaErrorNoDevice:
      count = 0;
      break;
    default:
      throw Unsupported(str(beginning, error_text(error), "; or use device cpu"));
  }
  if (count == 0) throw Unsupported(str(beginning, "this machine has no NVIDIA GPU; use device cpu"));
  return count;
}

std::string why_unserved(int index, const cudaDeviceProp& properties) {
  const bool has_code = code_for(properties.major, properties.minor, PAGEDCORE_CUDA_CODE) != Code::none;
  if (properties.major >= kOldestMajor && has_code) return "";
  if (properties.major >= kOldestMajor)
    return str("device cuda:", index, ", ", properties.name, ", has compute capability ", properties.major, ".",
               properties.minor, ", for which the CUDA backend was built without code (", PAGEDCORE_CUDA_CODE,
               "); build it with -DPAGEDCORE_CUDA_ARCHITECTURES=", properties.major, properties.minor, "-real or all");
  return str("device cuda:", index, ", ", properties.name, ", has compute capability ", properties.major, ".",
             properties.minor, "; the CUDA backend needs ", kOldestMajor, ".0 or newer: use device cpu");
}

Code code_for(int major, int minor, const char* code) {
  Code found = Code::none;
  std::istringstream list(code);
  for (std::string entry; std::getline(list, entry, ',');) {
    if (entry.find_first_of("0123456789") != 0) return Code::machine;  // "native" and its like: whoever built it knows
    std::size_t digits = 0;
    const int of = std::stoi(entry, &digits), of_major = of / 10, of_minor = of % 10;
    const std::string kind = entry.substr(digits);
    if (kind != "-virtual" && of_major == major && of_minor <= minor) return Code::machine;
    if (kind != "-real" && of <= 10 * major + minor) found = Code::ptx;
  }
  return found;
}

void query(CudaStatus& status) {
  status.runtime_version = CUDART_VERSION;
  status.driver_version = driver_version();
  try {
    const int count = device_count();
    for (int i = 0; i < count; ++i) status.devices.push_back(device_of(i));
  } catch (const Error& missing) {
    status.problem = missing.what();
    return;
  }
  status.problem = status.devices.front().problem;
  for (const CudaDevice& device : status.devices) {
    if (device.problem.empty()) status.problem.clear();
  }
}

}  // namespace pagedcore::cuda
