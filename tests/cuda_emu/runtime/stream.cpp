#include "runtime/stream.hpp"

#include <set>

#include "emulator/block.hpp"
#include "runtime/runtime.hpp"

namespace cuda_emu {
namespace {

cudaError_t last_error = cudaSuccess;
CUstream_st default_stream;
std::set<CUstream_st*> streams{&default_stream};

void run_until(CUstream_st& stream, std::uint64_t ticket) {
  if (stream.done >= ticket) return;
  const DeviceAccess access;
  while (stream.done < ticket) {
    const std::function<void()> operation = std::move(stream.operations.front());
    stream.operations.pop_front();
    ++stream.done;
    operation();
  }
}

/// What a wait returns: errors of kernels stay, as a broken context does.
cudaError_t after_waiting() { return machine().kernels != cudaSuccess ? machine().kernels : cudaSuccess; }

}  // namespace

std::recursive_mutex& device_mutex() {
  static std::recursive_mutex mutex;
  return mutex;
}

CUstream_st& resolve(cudaStream_t stream) {
  if (stream == nullptr) return default_stream;  // of whatever device is current
  note_use_of(stream->device);
  return *stream;
}

void set_last_error(cudaError_t error) { last_error = error; }

void enqueue(cudaStream_t stream, std::function<void()> operation) {
  enqueue(stream, NodeKind::kernel, std::move(operation));
}

void enqueue(cudaStream_t stream, NodeKind kind, std::function<void()> operation) {
  const std::lock_guard lock(device_mutex());
  CUstream_st& s = resolve(stream);
  if (s.capturing != nullptr) {
    s.capturing->nodes.push_back({kind, std::move(operation)});
    return;
  }
  s.operations.push_back(std::move(operation));
  ++s.enqueued;
  switch (options().order) {
    case Order::ascending:
      break;
    case Order::descending:
      run_until(s, s.enqueued);
      break;
    case Order::others_first:
      if (!s.is_first) run_until(s, s.enqueued);
      break;
    case Order::random:
      while (s.done < s.enqueued && random_number() % 4 == 0) run_until(s, s.done + 1);
  }
}

}  // namespace cuda_emu

using namespace cuda_emu;

extern "C" {

cudaError_t CUDARTAPI cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  const std::lock_guard lock(device_mutex());
  if (!may_allocate()) return cudaErrorMemoryAllocation;
  count_object(1);
  *stream = new CUstream_st;
  (*stream)->device = current_device();
  (*stream)->is_first = streams.size() == 1;  // beside the default stream
  streams.insert(*stream);
  return cudaSuccess;
}

cudaError_t CUDARTAPI cudaStreamDestroy(cudaStream_t stream) {
  const std::lock_guard lock(device_mutex());
  if (const cudaError_t error = refuse_in_capture(resolve(stream), cudaErrorStreamCaptureUnsupported)) return error;
  run_until(*stream, stream->enqueued);
  streams.erase(stream);
  delete stream;
  count_object(-1);
  return cudaSuccess;
}

cudaError_t CUDARTAPI cudaStreamSynchronize(cudaStream_t stream) {
  const std::lock_guard lock(device_mutex());
  if (const cudaError_t error = refuse_in_capture(resolve(stream), cudaErrorStreamCaptureUnsupported)) return error;
  run_until(resolve(stream), resolve(stream).enqueued);
  return after_waiting();
}

cudaError_t CUDARTAPI cudaDeviceSynchronize() {
  const std::lock_guard lock(device_mutex());
  for (CUstream_st* stream : streams) {
    if (const cudaError_t error = refuse_in_capture(*stream, cudaErrorStreamCaptureUnsupported)) return error;
  }
  for (CUstream_st* stream : streams) run_until(*stream, stream->enqueued);
  return after_waiting();
}

cudaError_t CUDARTAPI cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  if (!may_allocate()) return cudaErrorMemoryAllocation;
  count_object(1);
  *event = new CUevent_st;
  (*event)->device = current_device();
  return cudaSuccess;
}

cudaError_t CUDARTAPI cudaEventDestroy(cudaEvent_t event) {
  note_use_of(event->device);
  delete event;
  count_object(-1);
  return cudaSuccess;
}

cudaError_t CUDARTAPI cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  const std::lock_guard lock(device_mutex());
  CUstream_st& s = resolve(stream);
  note_use_of(event->device);
  *event = {&s, s.enqueued, s.capturing != nullptr, event->device};
  return cudaSuccess;
}

cudaError_t CUDARTAPI cudaEventSynchronize(cudaEvent_t event) {
  const std::lock_guard lock(device_mutex());
  note_use_of(event->device);
  if (event->captured) {
    if (streams.contains(event->stream)) refuse_in_capture(*event->stream, cudaErrorCapturedEvent);
    set_last_error(cudaErrorCapturedEvent);
    return cudaErrorCapturedEvent;
  }
  if (event->stream != nullptr && streams.contains(event->stream)) run_until(*event->stream, event->ticket);
  return after_waiting();
}

cudaError_t CUDARTAPI cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  const std::lock_guard lock(device_mutex());
  // Captures of several streams, joined by events, are beyond this runtime; so is waiting for what a capture cannot
  // see.
  if (event->captured || resolve(stream).capturing != nullptr) {
    refuse_in_capture(resolve(stream), cudaErrorStreamCaptureIsolation);
    set_last_error(cudaErrorStreamCaptureIsolation);
    return cudaErrorStreamCaptureIsolation;
  }
  const CUevent_st awaited = *event;
  enqueue(stream, [awaited] {
    if (awaited.stream != nullptr && streams.contains(awaited.stream)) run_until(*awaited.stream, awaited.ticket);
  });
  return cudaSuccess;
}

cudaError_t CUDARTAPI cudaGetLastError() {
  const std::lock_guard lock(device_mutex());
  return std::exchange(last_error, cudaSuccess);
}

cudaError_t CUDARTAPI cudaPeekAtLastError() {
  const std::lock_guard lock(device_mutex());
  return last_error;
}

}  // extern "C"
