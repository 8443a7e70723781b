// The fake CUDA runtime: the real prototypes over host memory. Streams are queues that run as late as the program
// allows (Order::ascending: when something waits for them), at once (descending), or now and then (random). Device
// memory may be touched by kernels and copies only: the host faults on it.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <functional>
#include <mutex>

namespace cuda_emu {

/// Held by every call, so that engines in several threads may share the device.
std::recursive_mutex& device_mutex();

void set_last_error(cudaError_t error);
void enqueue(cudaStream_t stream, std::function<void()> operation);
/// Bytes of dynamic shared memory that the kernel may be launched with.
std::size_t max_dynamic_shared(const void* kernel);

/// While one lives, device memory can be touched.
class DeviceAccess {
 public:
  DeviceAccess();
  ~DeviceAccess();
  DeviceAccess(const DeviceAccess&) = delete;
  DeviceAccess& operator=(const DeviceAccess&) = delete;
};
/// Whether [p, p + bytes) lies within one allocation of device memory.
bool is_device_memory(const void* p, std::size_t bytes);

}  // namespace cuda_emu
