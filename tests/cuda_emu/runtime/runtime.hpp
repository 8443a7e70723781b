// The fake CUDA runtime: the real prototypes over host memory. Streams are queues that run as late as the program
// allows (Order::ascending: when something waits for them), at once (descending), or now and then (random). Device
// memory may be touched by kernels and copies only: the host faults on it.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>

namespace cuda_emu {

/// What a driver does with graphs.
enum class Graphs { all, no_capture, no_updates, no_executables };

/// The machine that a test wants; an error stays until it is changed back.
struct Machine {
  cudaError_t driver = cudaSuccess;  // what cudaGetDeviceCount answers
  int driver_version = 13000;        // 0: there is no driver
  cudaError_t code = cudaSuccess;    // what asking for a kernel answers
  int devices = 1;
  int compute_capability = 8, compute_minor = 0;
  int multiprocessors = 4;
  std::size_t device_bytes = std::size_t{1} << 30;
  std::size_t pinned_bytes = std::size_t{1} << 30;  // that cudaHostAlloc gives in one piece
  int allocations_left = -1;                        // then memory, streams and events fail; < 0: never
  cudaError_t kernels = cudaSuccess;                // what kernels end with: found by whoever waits for them
  Graphs graphs = Graphs::all;
  std::size_t kernel_bytes = 0;  // of device memory that a kernel's code takes from when it is loaded
};
Machine& machine();

/// What happened to graphs since the program started.
struct GraphCounters {
  std::uint64_t captures = 0, instantiations = 0, updates = 0, launches = 0;
};
GraphCounters& graph_counters();

/// Copies that have happened since the program started: to the device, to the host, from device to device.
struct CopyCounters {
  std::uint64_t in = 0, out = 0, within = 0;
  std::uint64_t bytes_in = 0, bytes_out = 0, bytes_within = 0;
};
CopyCounters& copy_counters();

/// Calls about a stream, an event, a graph or memory of a device that was not the calling thread's current one. CUDA
/// takes some of them and refuses others.
std::uint64_t calls_on_another_device();
/// Launches of kernels that nobody had loaded by asking for their attributes: the driver would have done it then.
std::uint64_t launches_of_unloaded_kernels();
/// As in a process that has loaded none.
void unload_kernels();

/// Held by every call, so that engines in several threads may share the device.
std::recursive_mutex& device_mutex();

void set_last_error(cudaError_t error);
/// A kernel, or anything else that a graph can hold like one.
void enqueue(cudaStream_t stream, std::function<void()> operation);
/// Bytes of dynamic shared memory that the kernel may be launched with.
std::size_t max_dynamic_shared(const void* kernel);
/// Bytes of cudaMalloc that have not been given back.
std::size_t device_bytes_in_use();
/// Bytes of the code of loaded kernels.
std::size_t code_bytes_in_use();
/// Pieces of pinned memory, streams and events that have not been given back.
int objects_in_use();
/// To be asked by whatever allocates: false when it shall fail.
bool may_allocate();
/// Counts an object in (1) or out (-1).
void count_object(int change);
/// The calling thread's.
int current_device();
/// To be called with the device of whatever a call is about.
void note_use_of(int device);
void note_launch_of(const void* kernel);

/// While one lives, device memory can be touched.
class DeviceAccess {
 public:
  DeviceAccess();
  ~DeviceAccess();
  DeviceAccess(const DeviceAccess&) = delete;
  DeviceAccess& operator=(const DeviceAccess&) = delete;
};
/// Whether [p, p + bytes) lies within one allocation of device memory, or of pinned host memory.
bool is_device_memory(const void* p, std::size_t bytes);
bool is_pinned_memory(const void* p, std::size_t bytes);
bool is_capturing(cudaStream_t stream);

/// For a library of kernels that is opened at run time: this runtime, which may itself be part of a plugin.
struct Hooks {
  void (*enqueue)(cudaStream_t stream, std::function<void()> operation) = &cuda_emu::enqueue;
  bool (*is_device_memory)(const void* p, std::size_t bytes) = &cuda_emu::is_device_memory;
  bool (*is_capturing)(cudaStream_t stream) = &cuda_emu::is_capturing;
};

}  // namespace cuda_emu
