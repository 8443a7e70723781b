// Pinned host memory through which bytes go to and from the device.
#pragma once

#include <cstddef>
#include <deque>
#include <memory>
#include <span>

#include "backend/device.hpp"

namespace pagedcore::cuda {

/// A ring: pieces are taken in order and are free again when the copies that were enqueued from them have happened.
/// Those of a recording (StepGraphs) stay until it has been submitted, and its copies have happened, or is forgotten.
class Staging {
 public:
  Staging(Device& device, std::size_t bytes);
  ~Staging();
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;

  /// Enqueues on `stream` the copy of host memory of any size to the device; it is read before this returns. Waits
  /// where the ring is full of copies that have not happened yet.
  void upload(std::byte* to, std::span<const std::byte> from, cudaStream_t stream);

  /// Copies device memory of any size to the host, and waits for it.
  void download(std::span<std::byte> to, const std::byte* from, cudaStream_t stream);

  /// A piece of at most half the ring, aligned to 64, to be filled or to be copied to. After enqueueing the copies that
  /// use it on `stream`, done() says so.
  std::byte* take(std::size_t bytes);
  void done(cudaStream_t stream);

  /// What was recorded since the last call of either has been submitted to `stream`, or never will be. The event is of
  /// the caller, who makes it before anything is submitted: nothing may fail between the two.
  void submit_recorded(cudaStream_t stream, std::shared_ptr<Event> event);
  void forget_recorded() noexcept;

 private:
  struct Piece {
    std::size_t begin, end;
    std::shared_ptr<Event> event;  // none: recorded
  };
  Device& device_;
  std::byte* memory_ = nullptr;
  std::size_t capacity_;
  std::size_t next_ = 0;
  std::deque<Piece> pieces_;  // in use, oldest first
};

}  // namespace pagedcore::cuda
