#include <cstdio>
#include <map>

#include "runtime/runtime.hpp"

namespace cuda_emu {
namespace {

constexpr int kDefaultDynamicShared = 48 << 10;
constexpr int kOptInDynamicShared = 99 << 10;  // sm_86, sm_89, sm_120; others grant more
std::map<const void*, int> dynamic_shared_limits;

}  // namespace

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

cudaError_t CUDARTAPI cudaSetDevice(int device) {
  return device >= 0 && device < machine().devices ? cudaSuccess : cudaErrorInvalidDevice;
}

cudaError_t CUDARTAPI cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
  *properties = {};
  std::snprintf(properties->name, sizeof properties->name, "emulated GPU");
  properties->major = machine().compute_capability;
  properties->multiProcessorCount = 4;
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
