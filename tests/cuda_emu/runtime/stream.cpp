#include <deque>
#include <set>

#include "emulator/block.hpp"
#include "runtime/runtime.hpp"

struct CUstream_st {
  std::deque<std::function<void()>> operations;
};

namespace cuda_emu {
namespace {

cudaError_t last_error = cudaSuccess;
CUstream_st default_stream;
std::set<CUstream_st*> streams{&default_stream};

CUstream_st& resolve(cudaStream_t stream) { return stream == nullptr ? default_stream : *stream; }

void run_next(CUstream_st& stream) {
  const std::function<void()> operation = std::move(stream.operations.front());
  stream.operations.pop_front();
  const DeviceAccess access;
  operation();
}

void drain(CUstream_st& stream) {
  while (!stream.operations.empty()) run_next(stream);
}

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
  switch (options().order) {
    case Order::ascending:
      break;
    case Order::descending:
      drain(s);
      break;
    case Order::random:
      while (!s.operations.empty() && random_number() % 4 == 0) run_next(s);
  }
}

}  // namespace cuda_emu

using namespace cuda_emu;

extern "C" {

cudaError_t CUDARTAPI cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  const std::lock_guard lock(device_mutex());
  *stream = new CUstream_st;
  streams.insert(*stream);
  return cudaSuccess;
}

cudaError_t CUDARTAPI cudaStreamDestroy(cudaStream_t stream) {
  const std::lock_guard lock(device_mutex());
  drain(*stream);
  streams.erase(stream);
  delete stream;
  return cudaSuccess;
}

cudaError_t CUDARTAPI cudaStreamSynchronize(cudaStream_t stream) {
  const std::lock_guard lock(device_mutex());
  drain(resolve(stream));
  return last_error;
}

cudaError_t CUDARTAPI cudaDeviceSynchronize() {
  const std::lock_guard lock(device_mutex());
  for (CUstream_st* stream : streams) drain(*stream);
  return last_error;
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
