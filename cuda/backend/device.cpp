#include "backend/device.hpp"

#include <algorithm>
#include <utility>

#include "backend/query.hpp"
#include "base/text.hpp"
#include "kernels/kernel_list.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore::cuda {
namespace {

constexpr std::size_t kSmallChunk = std::size_t{1} << 20;

}  // namespace

CurrentDevice::CurrentDevice(int index) noexcept : index_(index) {
  if (cudaGetDevice(&before_) != cudaSuccess) before_ = -1;
  is_ = before_ == index || cudaSetDevice(index) == cudaSuccess;
}
CurrentDevice::~CurrentDevice() {
  if (is_ && before_ >= 0 && before_ != index_) cudaSetDevice(before_);
}

Stream::Stream(Device& device) {
  device.check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "making a stream");
}
Stream::~Stream() {
  if (stream_ != nullptr) cudaStreamDestroy(stream_);
}

Event::Event(Device& device) {
  device.check(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), "making an event");
}
Event::~Event() {
  if (event_ != nullptr) cudaEventDestroy(event_);
}
void Event::record(Device& device, cudaStream_t stream) const {
  device.check(cudaEventRecord(event_, stream), "recording an event");
}
Event::Event(Event&& other) noexcept : event_(std::exchange(other.event_, nullptr)) {}

Device::Device(int index) : index_(index) {
  const int count = device_count();
  if (index < 0 || index >= count) {
    throw InvalidArgument(
        str("device cuda:", index, ": this machine has ", count, " NVIDIA GPU(s), from cuda:0 to cuda:", count - 1));
  }
  cudaDeviceProp properties{};
  check(cudaGetDeviceProperties(&properties, index), "asking for the device's properties");
  name_ = properties.name;
  multiprocessors_ = properties.multiProcessorCount;
  if (const std::string why = why_unserved(index, properties); !why.empty()) throw Unsupported(why);
  use();
  load_code(properties);
  stream_ = std::make_unique<Stream>(*this);
}

/// Before anything else runs, and before anybody asks how much memory is free.
void Device::load_code(const cudaDeviceProp& properties) {
  const cudaError_t error = load_kernels();
  switch (error) {
    case cudaErrorNoKernelImageForDevice:
    case cudaErrorInvalidKernelImage:
    case cudaErrorUnsupportedPtxVersion:
    case cudaErrorJitCompilationDisabled:
      static_cast<void>(cudaGetLastError());
      throw Unsupported(str("device cuda:", index_, ", ", name_, ", of compute capability ", properties.major, ".",
                            properties.minor, ": the CUDA backend was built without code for it (", error_text(error),
                            "); build it with -DPAGEDCORE_CUDA_ARCHITECTURES=", properties.major, properties.minor,
                            " or all, or update the driver"));
    default:
      check(error, "loading the device's code");
  }
}

Device::~Device() {
  const CurrentDevice current(index_);
  if (!current.is()) return;
  if (stream_ != nullptr) cudaStreamSynchronize(stream_->get());
  for (const Chunk& chunk : chunks_) cudaFree(chunk.memory);
  stream_.reset();
}

void Device::check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  static_cast<void>(cudaGetLastError());
  if (error == cudaErrorMemoryAllocation)
    throw OutOfMemory(str(what, " failed on device cuda:", index_, ": ", error_text(error)));
  if (recording_ && error >= cudaErrorStreamCaptureUnsupported && error <= cudaErrorStreamCaptureWrongThread)
    give_up_recording(what);
  fail(what, error_text(error));
}

void Device::give_up_recording(const char* what) {
  if (recording_) throw RecordingFailed();
  fail(what, "it takes a recording, and none is under way");
}

void Device::fail(const std::string& what, const std::string& error) {
  const std::string text = str(what, " failed on device cuda:", index_, ": ", error);
  if (failure_.empty()) failure_ = text;
  throw Aborted(str(text, "; this backend cannot go on"));
}

void Device::use() {
  if (!failure_.empty()) throw Aborted(str("the CUDA backend stopped: ", failure_, "; make a new engine"));
  check(cudaSetDevice(index_), "choosing the device");
}

std::size_t Device::free_memory() {
  use();
  std::size_t free = 0, total = 0;
  check(cudaMemGetInfo(&free, &total), "asking for free memory");
  return free;
}

Device::Chunk& Device::add_chunk(std::size_t bytes, const std::string& purpose) {
  void* memory = nullptr;
  const cudaError_t error = cudaMalloc(&memory, bytes);
  if (error == cudaErrorMemoryAllocation) {
    static_cast<void>(cudaGetLastError());
    throw OutOfMemory(
        str(purpose, ": cannot allocate ", bytes, " bytes of device memory; ", free_memory(), " are free on ", name_));
  }
  check(error, "allocating memory");
  chunks_.push_back({static_cast<std::byte*>(memory), Arena(bytes)});
  return chunks_.back();
}

void Device::reserve(std::size_t planned, std::size_t workspace, std::size_t driver) {
  use();
  if (reserved_) throw InvalidArgument("the device's memory has been reserved already");
  const std::size_t free = free_memory();
  const std::string purpose = str("weights, activations and KV cache of ", planned, " bytes + a workspace of ",
                                  workspace, " bytes = ", planned + workspace);
  if (planned > free || workspace > free - planned || driver > free - planned - workspace) {
    throw OutOfMemory(
        str(purpose, ", and ", driver, " bytes that the driver takes for graphs and libraries, but ", name_, " has ",
            free, " bytes free; lower kv_cache_memory, max_batched_tokens or the workspace, or use a smaller model"));
  }
  add_chunk(planned + workspace, purpose);
  reserved_ = true;
}

std::byte* Device::take(std::size_t bytes) {
  for (Chunk& chunk : chunks_) {
    if (const auto offset = chunk.arena.take(bytes)) return chunk.memory + *offset;
  }
  if (reserved_) {
    const Arena& arena = chunks_.front().arena;
    throw OutOfMemory(str(bytes, " bytes do not fit into the ", arena.capacity(), " bytes reserved on ", name_,
                          ", of which ", arena.used(), " are in use and ", arena.largest_gap(),
                          " free in one piece; raise workspace or lower max_batched_tokens"));
  }
  Chunk& chunk = add_chunk(std::max(bytes, kSmallChunk) + Arena::kAlignment, "a buffer");
  return chunk.memory + *chunk.arena.take(bytes);
}

void Device::give_back(std::byte* memory) noexcept {
  for (Chunk& chunk : chunks_) {
    if (memory >= chunk.memory && memory < chunk.memory + chunk.arena.capacity()) {
      return chunk.arena.give_back(static_cast<std::size_t>(memory - chunk.memory));
    }
  }
}

DeviceMemory::DeviceMemory(Device& device, std::size_t bytes)
    : device_(&device), data_(bytes > 0 ? device.take(bytes) : nullptr), bytes_(bytes) {}
DeviceMemory::~DeviceMemory() {
  if (data_ != nullptr) device_->give_back(data_);
}
DeviceMemory::DeviceMemory(DeviceMemory&& other) noexcept
    : device_(other.device_), data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
DeviceMemory& DeviceMemory::operator=(DeviceMemory&& other) noexcept {
  std::swap(device_, other.device_);
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

}  // namespace pagedcore::cuda
