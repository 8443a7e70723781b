#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>

#include "emulator/block.hpp"
#include "emulator/sanitizer.hpp"
#include "runtime/runtime.hpp"
#include "runtime/stream.hpp"

namespace cuda_emu {
namespace {

// More than this is not touched, so that a test may have more than the machine: it holds zeros.
constexpr std::size_t kMostPoisoned = std::size_t{1} << 30;

struct Allocation {
  std::size_t bytes = 0;   // as asked for
  std::size_t mapped = 0;  // whole pages; an inaccessible one follows
  int device = 0;
};
std::map<std::uintptr_t, Allocation> allocations;
std::map<std::uintptr_t, std::size_t> pinned;  // address -> bytes
std::size_t used_bytes = 0;
int access_depth = 0;

std::size_t page_bytes() {
  static const auto bytes = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  return bytes;
}

void count_copy(NodeKind kind, std::size_t bytes) {
  CopyCounters& c = copy_counters();
  const bool in = kind == NodeKind::copy_in, out = kind == NodeKind::copy_out;
  ++(in ? c.in : out ? c.out : c.within);
  (in ? c.bytes_in : out ? c.bytes_out : c.bytes_within) += bytes;
}

std::size_t free_bytes() {
  const std::size_t used = used_bytes + code_bytes_in_use(), all = machine().device_bytes;
  return used < all ? all - used : 0;
}

void protect_all(int protection) {
  for (const auto& [address, a] : allocations) mprotect(reinterpret_cast<void*>(address), a.mapped, protection);
}

}  // namespace

DeviceAccess::DeviceAccess() {
  if (access_depth++ == 0) protect_all(PROT_READ | PROT_WRITE);
}
DeviceAccess::~DeviceAccess() {
  if (--access_depth == 0) protect_all(PROT_NONE);
}

CopyCounters& copy_counters() {
  static CopyCounters the_counters;
  return the_counters;
}

std::size_t device_bytes_in_use() { return used_bytes; }

bool is_device_memory(const void* p, std::size_t bytes) {
  const auto address = reinterpret_cast<std::uintptr_t>(p);
  auto after = allocations.upper_bound(address);
  if (after == allocations.begin()) return false;
  const auto& [begin, a] = *--after;
  return address + bytes <= begin + a.bytes;
}

bool is_pinned_memory(const void* p, std::size_t bytes) {
  const auto address = reinterpret_cast<std::uintptr_t>(p);
  auto after = pinned.upper_bound(address);
  if (after == pinned.begin()) return false;
  const auto& [begin, size] = *--after;
  return address + bytes <= begin + size;
}

}  // namespace cuda_emu

using namespace cuda_emu;

extern "C" {

cudaError_t CUDARTAPI cudaMalloc(void** p, std::size_t bytes) {
  const std::lock_guard lock(device_mutex());
  *p = nullptr;
  if (bytes == 0) return cudaSuccess;
  const std::size_t page = page_bytes(), mapped = (bytes + page - 1) / page * page;
  if (bytes > free_bytes() || !may_allocate()) return cudaErrorMemoryAllocation;
  void* memory =
      mmap(nullptr, mapped + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) return cudaErrorMemoryAllocation;
  if (bytes <= kMostPoisoned) poison(memory, bytes);
  forbid(static_cast<char*>(memory) + bytes, mapped - bytes);
  mprotect(memory, mapped + page, PROT_NONE);
  if (access_depth > 0) mprotect(memory, mapped, PROT_READ | PROT_WRITE);
  allocations[reinterpret_cast<std::uintptr_t>(memory)] = {bytes, mapped, current_device()};
  used_bytes += bytes;
  *p = memory;
  return cudaSuccess;
}

cudaError_t CUDARTAPI cudaFree(void* p) {
  if (p == nullptr) return cudaSuccess;
  if (const cudaError_t error = cudaDeviceSynchronize(); error == cudaErrorStreamCaptureUnsupported) return error;
  const std::lock_guard lock(device_mutex());
  const auto found = allocations.find(reinterpret_cast<std::uintptr_t>(p));
  if (found == allocations.end()) return cudaErrorInvalidValue;
  note_use_of(found->second.device);
  allow(static_cast<char*>(p) + found->second.bytes, found->second.mapped - found->second.bytes);
  munmap(p, found->second.mapped + page_bytes());
  used_bytes -= found->second.bytes;
  allocations.erase(found);
  return cudaSuccess;
}

cudaError_t CUDARTAPI cudaHostAlloc(void** p, std::size_t bytes, unsigned) {
  const std::lock_guard lock(device_mutex());
  *p = bytes <= machine().pinned_bytes && may_allocate() ? std::malloc(bytes) : nullptr;
  if (*p == nullptr) return cudaErrorMemoryAllocation;
  count_object(1);
  poison(*p, bytes);
  pinned[reinterpret_cast<std::uintptr_t>(*p)] = bytes;
  return cudaSuccess;
}

cudaError_t CUDARTAPI cudaFreeHost(void* p) {
  const std::lock_guard lock(device_mutex());
  if (p != nullptr) count_object(-1);
  pinned.erase(reinterpret_cast<std::uintptr_t>(p));
  std::free(p);
  return cudaSuccess;
}

cudaError_t CUDARTAPI cudaMemGetInfo(std::size_t* free, std::size_t* total_bytes) {
  const std::lock_guard lock(device_mutex());
  *free = free_bytes();
  *total_bytes = machine().device_bytes;
  return cudaSuccess;
}

cudaError_t CUDARTAPI cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind,
                                      cudaStream_t stream) {
  const std::lock_guard lock(device_mutex());
  const bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
  const bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
  if (kind != cudaMemcpyDefault && bytes > 0 &&
      (is_device_memory(to, bytes) != to_device || is_device_memory(from, bytes) != from_device)) {
    set_last_error(cudaErrorInvalidValue);
    return cudaErrorInvalidValue;
  }
  const bool pageable = (to_device && !from_device && !is_pinned_memory(from, bytes)) ||
                        (from_device && !to_device && !is_pinned_memory(to, bytes));
  if (pageable) {  // would be read, or filled, when the graph runs
    if (const cudaError_t error = refuse_in_capture(resolve(stream), cudaErrorStreamCaptureUnsupported)) return error;
  }
  const NodeKind node = from_device && to_device ? NodeKind::copy_within
                        : from_device            ? NodeKind::copy_out
                                                 : NodeKind::copy_in;
  enqueue(stream, node, [=] {
    std::memcpy(to, from, bytes);
    count_copy(node, bytes);
  });
  return cudaSuccess;
}

cudaError_t CUDARTAPI cudaMemcpy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind) {
  const cudaError_t error = cudaMemcpyAsync(to, from, bytes, kind, nullptr);
  return error != cudaSuccess ? error : cudaDeviceSynchronize();
}

cudaError_t CUDARTAPI cudaMemsetAsync(void* p, int value, std::size_t bytes, cudaStream_t stream) {
  const std::lock_guard lock(device_mutex());
  if (bytes > 0 && !is_device_memory(p, bytes)) {
    set_last_error(cudaErrorInvalidValue);
    return cudaErrorInvalidValue;
  }
  enqueue(stream, NodeKind::memset, [=] { std::memset(p, value, bytes); });
  return cudaSuccess;
}

}  // extern "C"
