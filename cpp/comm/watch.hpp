// Whether the other ranks, which are processes, live: a thread hears their heartbeats, sees their processes end, and
// carries the word when the group ends. It sleeps between heartbeats.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "comm/communicator.hpp"
#include "comm/failure.hpp"
#include "comm/sockets.hpp"

namespace pagedcore::comm {

class Watch {
 public:
  /// Owns the control links, none to itself. `wake` is called, by any thread, when failed() or gone() becomes true; it
  /// must not throw. Throws Io when the process has no descriptor or thread left.
  Watch(int rank, std::vector<Socket> control, const Limits& limits, std::function<void()> wake);
  /// Says goodbye.
  ~Watch();
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;

  bool failed() const noexcept { return failed_.load(); }
  /// Whether the rank said goodbye. What it did before is seen by whoever sees this.
  bool gone(int rank) const noexcept { return peers_[static_cast<std::size_t>(rank)].gone.load(); }
  /// Ends the group here, and everywhere with the same words. The first reason stays. Never blocks, never throws.
  void fail(Failure why) noexcept;
  [[noreturn]] void throw_failure() const;

 private:
  struct Peer {
    Socket control, process;       // the latter a pidfd, where the peer is of this machine
    std::vector<std::byte> heard;  // of a frame that is not whole
    int silent = 0;                // periods without a word
    std::atomic<bool> gone{false};
    bool ended = false;  // nothing more is read from it
  };
  void run();
  void read_from(int rank);
  void take(int rank, const FrameHeader& header, std::span<const std::byte> payload);
  void tell(FrameKind kind, std::span<const std::byte> payload) noexcept;
  void lost(int rank, const std::string& how);
  bool end_with(Failure why) noexcept;

  const int rank_;
  const std::chrono::milliseconds period_;
  const std::function<void()> wake_;
  std::vector<Peer> peers_;
  Socket stop_;  // an eventfd
  std::atomic<bool> failed_{false};
  std::mutex mutex_;  // of the failure until failed_ is true
  Failure failure_;
  std::mutex sending_;
  std::thread thread_;
};

}  // namespace pagedcore::comm
