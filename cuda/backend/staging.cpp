#include "backend/staging.hpp"

#include <algorithm>
#include <cstring>

#include "base/text.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore::cuda {

Staging::Staging(Device& device, std::size_t bytes) : device_(device), capacity_(bytes) {
  void* memory = nullptr;
  const cudaError_t error = cudaHostAlloc(&memory, bytes, cudaHostAllocDefault);
  if (error == cudaErrorMemoryAllocation) {
    static_cast<void>(cudaGetLastError());
    throw OutOfMemory(str("cannot allocate ", bytes,
                          " bytes of pinned host memory for transfers; raise the limit of locked "
                          "memory (ulimit -l) or free memory"));
  }
  device.check(error, "allocating pinned host memory");
  memory_ = static_cast<std::byte*>(memory);
}

Staging::~Staging() {
  for (const Piece& piece : pieces_) {
    if (piece.event != nullptr) cudaEventSynchronize(piece.event->get());
  }
  cudaFreeHost(memory_);
}

std::byte* Staging::take(std::size_t bytes) {
  bytes = (bytes + 63) / 64 * 64;
  if (bytes > capacity_ / 2) {
    throw InvalidArgument(str("a transfer of ", bytes, " bytes in one piece; ", capacity_ / 2, " at most"));
  }
  if (next_ + bytes > capacity_) next_ = 0;
  const std::size_t begin = next_, end = begin + bytes;
  // Oldest first, so that whatever lies in the way goes, and nothing that was taken later.
  while (!pieces_.empty() &&
         std::ranges::any_of(pieces_, [&](const Piece& p) { return p.begin < end && begin < p.end; })) {
    if (pieces_.front().event == nullptr)
      device_.give_up_recording("a step of more copies than are staged at once");  // it waits for itself
    device_.check(cudaEventSynchronize(pieces_.front().event->get()), "waiting for a transfer");
    pieces_.pop_front();
  }
  // The event is made before anything can be enqueued: a copy whose piece nobody knows of would outlive the ring.
  pieces_.push_back({begin, end, device_.recording() ? nullptr : std::make_shared<Event>(device_)});
  next_ = end;
  return memory_ + begin;
}

void Staging::done(cudaStream_t stream) {
  if (const auto& event = pieces_.back().event) event->record(device_, stream);
}

void Staging::submit_recorded(cudaStream_t stream, std::shared_ptr<Event> event) {
  for (Piece& piece : pieces_) {
    if (piece.event == nullptr) piece.event = event;
  }
  event->record(device_, stream);
}

void Staging::forget_recorded() noexcept {
  std::erase_if(pieces_, [](const Piece& piece) { return piece.event == nullptr; });
}

void Staging::upload(std::byte* to, std::span<const std::byte> from, cudaStream_t stream) {
  const std::size_t most = capacity_ / 4;
  while (!from.empty()) {
    const std::size_t bytes = std::min(most, from.size());
    std::byte* piece = take(bytes);
    std::memcpy(piece, from.data(), bytes);
    device_.check(cudaMemcpyAsync(to, piece, bytes, cudaMemcpyHostToDevice, stream), "a copy to the device");
    done(stream);
    to += bytes;
    from = from.subspan(bytes);
  }
}

void Staging::download(std::span<std::byte> to, const std::byte* from, cudaStream_t stream) {
  while (!to.empty()) {
    const std::size_t bytes = std::min(capacity_ / 2, to.size());
    std::byte* piece = take(bytes);
    device_.check(cudaMemcpyAsync(piece, from, bytes, cudaMemcpyDeviceToHost, stream), "a copy from the device");
    done(stream);
    device_.check(cudaStreamSynchronize(stream), "waiting for the device");
    std::memcpy(to.data(), piece, bytes);
    from += bytes;
    to = to.subspan(bytes);
  }
}

}  // namespace pagedcore::cuda
