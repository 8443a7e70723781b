#include <atomic>
#include <cstdio>
#include <map>
#include <set>

#include "runtime/runtime.hpp"

namespace cuda_emu {
namespace {

constexpr int kDefaultDynamicShared = 48 << 10;
constexpr int kOptInDynamicShared = 99 << 10;  // sm_86, sm_89, sm_120; others grant more
std::map<const void*, int> dynamic_shared_limits;
int objects = 0;
thread_local int device_of_thread = 0;
std::atomic<std::uint64_t> foreign_calls{0};
std::set<const void*> loaded;
std::uint64_t unloaded_launches = 0;

}  // namespace

int current_device() { return device_of_thread; }
void note_use_of(int device) { foreign_calls += device != device_of_thread; }
std::uint64_t calls_on_another_device() { return foreign_calls; }

void note_launch_of(const void* kernel) {
  const std::lock_guard lock(device_mutex());
  if (loaded.insert(kernel).second) ++unloaded_launches;
}
std::uint64_t launches_of_unloaded_kernels() { return unloaded_launches; }
void unload_kernels() {
  const std::lock_guard lock(device_mutex());
  loaded.clear();
}
std::size_t code_bytes_in_use() { return loaded.size() * machine().kernel_bytes; }

bool may_allocate() {
  const std::lock_guard lock(device_mutex());
  int& left = machine().allocations_left;
  if (left == 0) return false;
  if (left > 0) --left;
  return true;
}

int objects_in_use() { return objects; }
void count_object(int change) {
  const std::lock_guard lock(device_mutex());
  objects += change;
}

Machine& machine() {
  static Machine the_machine;
  return the_machine;
}

std::size_t max_dynamic_shared(const void* kernel) {
  const auto found = dynamic_shared_limits.find(kernel);
  return static_cast<std::size_t>(found == dynamic_shared_limits.end() ? kDefaultDynamicShared : found->second);
}

}  // namespace cuda_emu

using namespace cuda_emu;

extern "C" {

// Of the plugin that is built against this runtime: a test finds them by dlsym().
__attribute__((visibility("default"))) Machine* cuda_emu_machine() { return &machine(); }
__attribute__((visibility("default"))) const Hooks* cuda_emu_hooks() {
  static const Hooks hooks;
  return &hooks;
}
__attribute__((visibility("default"))) bool cuda_emu_in_use() {
  return device_bytes_in_use() > 0 || objects_in_use() > 0;
}

cudaError_t CUDARTAPI cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value) {
  const std::lock_guard lock(device_mutex());
  if (attribute == cudaFuncAttributePreferredSharedMemoryCarveout) return cudaSuccess;
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize || value < 0 || value > kOptInDynamicShared) {
    set_last_error(cudaErrorInvalidValue);
    return cudaErrorInvalidValue;
  }
  dynamic_shared_limits[kernel] = value;
  return cudaSuccess;
}

cudaError_t CUDARTAPI cudaGetDeviceCount(int* count) {
  *count = machine().driver == cudaSuccess ? machine().devices : 0;
  return machine().driver;
}

cudaError_t CUDARTAPI cudaDriverGetVersion(int* version) {
  *version = machine().driver_version;
  return cudaSuccess;
}

/// The clocks and the bus of an A100.
cudaError_t CUDARTAPI cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  switch (attribute) {
    case cudaDevAttrClockRate:
      *value = 1'410'000;
      return cudaSuccess;
    case cudaDevAttrMemoryClockRate:
      *value = 1'215'000;
      return cudaSuccess;
    case cudaDevAttrGlobalMemoryBusWidth:
      *value = 5120;
      return cudaSuccess;
    default:
      set_last_error(cudaErrorInvalidValue);
      return cudaErrorInvalidValue;
  }
}

cudaError_t CUDARTAPI cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void* kernel) {
  const std::lock_guard lock(device_mutex());
  *attributes = {};
  if (machine().code == cudaSuccess) loaded.insert(kernel);
  return machine().code;
}

cudaError_t CUDARTAPI cudaSetDevice(int device) {
  if (device < 0 || device >= machine().devices) return cudaErrorInvalidDevice;
  device_of_thread = device;
  return cudaSuccess;
}

cudaError_t CUDARTAPI cudaGetDevice(int* device) {
  *device = device_of_thread;
  return cudaSuccess;
}

cudaError_t CUDARTAPI cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
  *properties = {};
  std::snprintf(properties->name, sizeof properties->name, "emulated GPU");
  properties->major = machine().compute_capability;
  properties->minor = machine().compute_minor;
  properties->multiProcessorCount = machine().multiprocessors;
  properties->totalGlobalMem = machine().device_bytes;
  return cudaSuccess;
}

#define CUDA_EMU_ERRORS(_)                                                                       \
  _(cudaSuccess, "no error")                                                                     \
  _(cudaErrorInvalidValue, "invalid argument")                                                   \
  _(cudaErrorMemoryAllocation, "out of memory")                                                  \
  _(cudaErrorInvalidConfiguration, "invalid configuration argument")                             \
  _(cudaErrorInvalidDevice, "invalid device ordinal")                                            \
  _(cudaErrorNoDevice, "no CUDA-capable device is detected")                                     \
  _(cudaErrorInsufficientDriver, "CUDA driver version is insufficient for CUDA runtime version") \
  _(cudaErrorNoKernelImageForDevice, "no kernel image is available for execution on the device") \
  _(cudaErrorIllegalAddress, "an illegal memory access was encountered")                         \
  _(cudaErrorStreamCaptureUnsupported, "operation not permitted when stream is capturing")       \
  _(cudaErrorStreamCaptureInvalidated, "operation failed due to a previous error during capture")

const char* CUDARTAPI cudaGetErrorName(cudaError_t error) {
#define CUDA_EMU_NAME(code, text) \
  if (error == code) return #code;
  CUDA_EMU_ERRORS(CUDA_EMU_NAME)
  return "an error that the emulator has no name for";
}

const char* CUDARTAPI cudaGetErrorString(cudaError_t error) {
#define CUDA_EMU_TEXT(code, text) \
  if (error == code) return text;
  CUDA_EMU_ERRORS(CUDA_EMU_TEXT)
  return "an error that the emulator has no text for";
}

}  // extern "C"
