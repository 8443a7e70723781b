#include <map>

#include "runtime/runtime.hpp"

namespace cuda_emu {
namespace {

constexpr int kDefaultDynamicShared = 48 << 10;
constexpr int kOptInDynamicShared = 99 << 10;  // sm_86, sm_89, sm_120; others grant more
std::map<const void*, int> dynamic_shared_limits;

}  // namespace

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

const char* CUDARTAPI cudaGetErrorName(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "cudaSuccess";
    case cudaErrorInvalidValue:
      return "cudaErrorInvalidValue";
    case cudaErrorMemoryAllocation:
      return "cudaErrorMemoryAllocation";
    case cudaErrorInvalidConfiguration:
      return "cudaErrorInvalidConfiguration";
    default:
      return "an error that the emulator has no name for";
  }
}

const char* CUDARTAPI cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "no error";
    case cudaErrorInvalidValue:
      return "invalid argument";
    case cudaErrorMemoryAllocation:
      return "out of memory";
    case cudaErrorInvalidConfiguration:
      return "invalid configuration argument";
    default:
      return "an error that the emulator has no text for";
  }
}

}  // extern "C"
