// One device as one backend sees it: its stream, its memory, and whether it still works.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "backend/arena.hpp"
#include "pagedcore/backend.hpp"

namespace pagedcore::cuda {

class Device;

/// Device memory in use. What was enqueued before it is given back may still use it: later operations of the stream
/// come after that, whoever has the memory then.
class DeviceMemory {
 public:
  DeviceMemory() = default;
  DeviceMemory(Device& device, std::size_t bytes);
  ~DeviceMemory();
  DeviceMemory(DeviceMemory&& other) noexcept;
  DeviceMemory& operator=(DeviceMemory&& other) noexcept;

  std::byte* data() const noexcept { return data_; }
  std::size_t bytes() const noexcept { return bytes_; }

 private:
  Device* device_ = nullptr;
  std::byte* data_ = nullptr;
  std::size_t bytes_ = 0;
};

/// The calling thread's current device is `index` while this lives; then the one that it was. What is freed may be
/// freed on any thread, whatever device it works with. Never throws: is() says whether it worked.
class CurrentDevice {
 public:
  explicit CurrentDevice(int index) noexcept;
  ~CurrentDevice();
  CurrentDevice(const CurrentDevice&) = delete;
  CurrentDevice& operator=(const CurrentDevice&) = delete;
  bool is() const noexcept { return is_; }

 private:
  int before_ = -1, index_;
  bool is_;
};

class Stream {
 public:
  explicit Stream(Device& device);
  ~Stream();
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  cudaStream_t get() const noexcept { return stream_; }

 private:
  cudaStream_t stream_ = nullptr;
};

class Event {
 public:
  explicit Event(Device& device);
  ~Event();
  Event(Event&& other) noexcept;
  Event& operator=(Event&&) = delete;
  cudaEvent_t get() const noexcept { return event_; }
  /// Happens when what `stream` has been given so far is done.
  void record(Device& device, cudaStream_t stream) const;

 private:
  cudaEvent_t event_ = nullptr;
};

/// Thrown where an operation cannot be part of a recording (StepGraphs), which is given up then. Only
/// Device::give_up_recording() throws it, and only in a recording, so that StepGraphs catches all.
struct RecordingFailed {};

class Device {
 public:
  /// Throws Unsupported without a driver, a device or an architecture that the plugin has code for, and InvalidArgument
  /// for an index out of range.
  explicit Device(int index);
  ~Device();
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  /// Throws what the error means: OutOfMemory for a failed allocation, RecordingFailed for what a recording forbids.
  /// Anything else leaves the device in an unknown
  /// state and poisons this object: every later call of use() throws Aborted with the first error's text.
  void check(cudaError_t error, const char* what);
  /// Throws RecordingFailed; poisons this object and throws Aborted where nothing is recorded.
  [[noreturn]] void give_up_recording(const char* what);
  /// Poisons this object and throws Aborted: `what` failed with an error that no cudaError_t tells.
  [[noreturn]] void fail(const std::string& what, const std::string& error);
  /// To be called first by every operation: throws Aborted once poisoned, and makes the device that of the calling
  /// thread.
  void use();

  /// While the operations of the stream are recorded instead of executed.
  bool recording() const noexcept { return recording_; }
  void set_recording(bool recording) noexcept { recording_ = recording; }

  cudaStream_t stream() const noexcept { return stream_->get(); }
  int index() const noexcept { return index_; }
  const std::string& name() const noexcept { return name_; }
  int multiprocessors() const noexcept { return multiprocessors_; }
  std::size_t free_memory();

  /// One arena for what was planned and `workspace` more; OutOfMemory with the arithmetic where that, and `driver` more
  /// for what the driver will take beside it, is not free.
  void reserve(std::size_t planned, std::size_t workspace, std::size_t driver);

 private:
  friend class DeviceMemory;
  std::byte* take(std::size_t bytes);
  void give_back(std::byte* memory) noexcept;
  struct Chunk {
    std::byte* memory;
    Arena arena;
  };
  Chunk& add_chunk(std::size_t bytes, const std::string& purpose);
  void load_code(const cudaDeviceProp& properties);

  int index_;
  std::string name_;
  int multiprocessors_ = 0;
  std::string failure_;  // not empty: poisoned
  std::unique_ptr<Stream> stream_;
  std::vector<Chunk> chunks_;  // the arena; without reserve(), one for each large allocation
  bool reserved_ = false, recording_ = false;
};

}  // namespace pagedcore::cuda
