// Sockets of this room: TCP and Unix, closed in children, every wait with an end.
#pragma once

#include <chrono>
#include <cstddef>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "comm/frame.hpp"

namespace pagedcore::comm {

using Clock = std::chrono::steady_clock;

class Socket {
 public:
  Socket() noexcept = default;
  explicit Socket(int fd) noexcept : fd_(fd) {}
  Socket(Socket&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Socket& operator=(Socket&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Socket();
  int fd() const noexcept { return fd_; }
  explicit operator bool() const noexcept { return fd_ >= 0; }

 private:
  int fd_ = -1;
};

/// "host:port", "[v6 address]:port" or "unix:/path". Throws InvalidArgument for anything else.
struct Address {
  explicit Address(const std::string& text);
  std::string text() const;
  bool local = false;
  std::string host, port;  // or the path
};

/// Listens, for this user only where it is a path. Throws Io, which names the address and what the system says.
Socket listen_at(const Address& address);
/// The same address with the port that the system chose for port 0.
Address bound_address(const Socket& listener, const Address& asked);
/// The peer's or this end's address without its port, as Address has it.
std::string host_of(const Socket& socket, bool peer);
/// "1.2.3.4:567" for messages.
std::string name_of_peer(const Socket& socket);

/// Tries until `end`, for who listens may not have started yet; once, if it has. Throws Io.
Socket connect_to(const Address& address, Clock::time_point end, bool listens_already = false);
/// An empty one when nobody connects before `end`.
Socket accept_from(const Socket& listener, Clock::time_point end);

void set_nonblocking(const Socket& socket);

/// Milliseconds from now until `end`, rounded up, as poll() wants them.
int poll_timeout(Clock::time_point end) noexcept;

/// All of it, or Io: the peer left, or `end` passed. `peer` is who, for the message.
void send_all(const Socket& to, std::span<const std::byte> bytes, Clock::time_point end, const std::string& peer);
void receive_all(const Socket& from, std::span<std::byte> bytes, Clock::time_point end, const std::string& peer);

void send_frame(const Socket& to, FrameKind kind, int sender, std::span<const std::byte> payload, Clock::time_point end,
                const std::string& peer);
/// The next frame. Throws Corrupt for what is none.
std::pair<FrameHeader, std::vector<std::byte>> receive_frame(const Socket& from, Clock::time_point end,
                                                             const std::string& peer);

/// A descriptor, over a Unix socket.
void send_descriptor(const Socket& to, int fd, Clock::time_point end, const std::string& peer);
Socket receive_descriptor(const Socket& from, Clock::time_point end, const std::string& peer);

}  // namespace pagedcore::comm
