#include <deque>
#include <set>

#include "emulator/block.hpp"
#include "runtime/runtime.hpp"

struct CUstream_st {
  std::deque<std::function<void()>> operations;
  std::uint64_t enqueued = 0, done = 0;
};

struct CUevent_st {
  CUstream_st* stream = nullptr;
  std::uint64_t ticket = 0;  // has happened once so many operations of the stream are done
};

namespace cuda_emu {
namespace {

cudaError_t last_error = cudaSuccess;
CUstream_st default_stream;
std::set<CUstream_st*> streams{&default_stream};

CUstream_st& resolve(cudaStream_t stream) { return stream == nullptr ? default_stream : *stream; }

void run_until(CUstream_st& stream, std::uint64_t ticket) {
  while (stream.done < ticket) {
    const std::function<void()> operation = std::move(stream.operations.front());
    stream.operations.pop_front();
    ++stream.done;
    const DeviceAccess access;
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

void set_last_error(cudaError_t error) { last_error = error; }

void enqueue(cudaStream_t stream, std::function<void()> operation) {
  const std::lock_guard lock(device_mutex());
  CUstream_st& s = resolve(stream);
  s.operations.push_back(std::move(operation));
  ++s.enqueued;
  switch (options().order) {
    case Order::ascending:
      break;
    case Order::descending:
      run_until(s, s.enqueued);
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
  streams.insert(*stream);
  return cudaSuccess;
}

cudaError_t CUDARTAPI cudaStreamDestroy(cudaStream_t stream) {
  const std::lock_guard lock(device_mutex());
  run_until(*stream, stream->enqueued);
  streams.erase(stream);
  delete stream;
  count_object(-1);
  return cudaSuccess;
}

cudaError_t CUDARTAPI cudaStreamSynchronize(cudaStream_t stream) {
  const std::lock_guard lock(device_mutex());
  run_until(resolve(stream), resolve(stream).enqueued);
  return after_waiting();
}

cudaError_t CUDARTAPI cudaDeviceSynchronize() {
  const std::lock_guard lock(device_mutex());
  for (CUstream_st* stream : streams) run_until(*stream, stream->enqueued);
  return after_waiting();
}

cudaError_t CUDARTAPI cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  if (!may_allocate()) return cudaErrorMemoryAllocation;
  count_object(1);
  *event = new CUevent_st;
  return cudaSuccess;
}

cudaError_t CUDARTAPI cudaEventDestroy(cudaEvent_t event) {
  delete event;
  count_object(-1);
  return cudaSuccess;
}

cudaError_t CUDARTAPI cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  const std::lock_guard lock(device_mutex());
  *event = {&resolve(stream), resolve(stream).enqueued};
  return cudaSuccess;
}

cudaError_t CUDARTAPI cudaEventSynchronize(cudaEvent_t event) {
  const std::lock_guard lock(device_mutex());
  if (event->stream != nullptr && streams.contains(event->stream)) run_until(*event->stream, event->ticket);
  return after_waiting();
}

cudaError_t CUDARTAPI cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
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
