#include "comm/sockets.hpp"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <thread>

#include "base/text.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore::comm {
namespace {

constexpr std::size_t kMostPath = sizeof(sockaddr_un::sun_path) - 10;  // ranks append to it

std::string system_says() { return std::strerror(errno); }

struct FreeAddresses {
  void operator()(addrinfo* list) const noexcept { freeaddrinfo(list); }
};
using Addresses = std::unique_ptr<addrinfo, FreeAddresses>;

Addresses look_up(const Address& address, bool to_listen) {
  addrinfo hints{}, *list = nullptr;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = to_listen ? AI_PASSIVE : 0;
  const int error =
      getaddrinfo(address.host.empty() ? nullptr : address.host.c_str(), address.port.c_str(), &hints, &list);
  if (error != 0) throw Io(str("cannot find ", address.text(), ": ", gai_strerror(error)));
  return Addresses(list);
}

sockaddr_un unix_address(const std::string& path) {
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  std::memcpy(name.sun_path, path.c_str(), path.size() + 1);
  return name;
}

Socket open_socket(int family) {
  Socket made(::socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!made) throw Io(str("cannot make a socket: ", system_says()));
  const int yes = 1;
  if (family != AF_UNIX) setsockopt(made.fd(), IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
  return made;
}

/// Waits for `events`; false when `end` has passed.
bool wait_for(int fd, short events, Clock::time_point end) {
  for (;;) {
    pollfd entry{fd, events, 0};
    const int ready = poll(&entry, 1, poll_timeout(end));
    if (ready > 0) return true;
    if (ready == 0 || errno != EINTR) return false;
  }
}

bool try_connect(const Socket& socket, const sockaddr* name, socklen_t size, Clock::time_point end) {
  set_nonblocking(socket);
  if (connect(socket.fd(), name, size) == 0) return true;
  if (errno != EINPROGRESS) return false;
  if (!wait_for(socket.fd(), POLLOUT, end)) return errno = ETIMEDOUT, false;
  int error = 0;
  socklen_t length = sizeof error;
  getsockopt(socket.fd(), SOL_SOCKET, SO_ERROR, &error, &length);
  errno = error;
  return error == 0;
}

[[noreturn]] void failed(const char* what, const std::string& peer, Clock::time_point end) {
  if (errno == EAGAIN || errno == ETIMEDOUT || Clock::now() >= end)
    throw Io(str(what, " ", peer, " failed: it said nothing for too long"));
  throw Io(str(what, " ", peer, " failed: ", system_says()));
}

}  // namespace

Socket::~Socket() {
  if (fd_ >= 0) close(fd_);
}

Address::Address(const std::string& text) {
  if (text.starts_with("unix:")) {
    local = true;
    host = text.substr(5);
    if (host.empty() || host.size() >= kMostPath)
      throw InvalidArgument(
          str("the socket's path '", host, "' has ", host.size(), " characters; give 1 to ", kMostPath - 1));
    return;
  }
  const std::size_t colon = text.rfind(':');
  if (colon != std::string::npos) host = text.substr(0, colon), port = text.substr(colon + 1);
  if (host.size() >= 2 && host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  const bool digits = !port.empty() && port.size() <= 5 &&
                      std::all_of(port.begin(), port.end(), [](char c) { return c >= '0' && c <= '9'; });
  if (!digits || std::stoi(port) > 65535)
    throw InvalidArgument(str("'", text, "' is no address; write host:port or unix:/path"));
}

std::string Address::text() const {
  if (local) return "unix:" + host;
  return (host.find(':') != std::string::npos ? "[" + host + "]" : host) + ":" + port;
}

Socket listen_at(const Address& address) {
  if (address.local) {
    Socket listener = open_socket(AF_UNIX);
    const sockaddr_un name = unix_address(address.host);
    // A socket that a killed process left behind is in the way; one that answers is somebody's.
    if (Socket probe = open_socket(AF_UNIX);
        connect(probe.fd(), reinterpret_cast<const sockaddr*>(&name), sizeof name) == 0)
      throw Io(str("cannot listen at ", address.text(), ": another process does; choose another path"));
    struct stat status {};
    if (lstat(address.host.c_str(), &status) == 0 && S_ISSOCK(status.st_mode)) unlink(address.host.c_str());
    fchmod(listener.fd(), 0600);  // what the path gets when it is bound
    if (bind(listener.fd(), reinterpret_cast<const sockaddr*>(&name), sizeof name) != 0 ||
        listen(listener.fd(), 64) != 0)
      throw Io(str("cannot listen at ", address.text(), ": ", system_says()));
    set_nonblocking(listener);
    return listener;
  }
  const Addresses list = look_up(address, true);
  for (const addrinfo* a = list.get(); a != nullptr; a = a->ai_next) {
    Socket listener = open_socket(a->ai_family);
    const int yes = 1;
    setsockopt(listener.fd(), SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(listener.fd(), a->ai_addr, a->ai_addrlen) == 0 && listen(listener.fd(), 64) == 0) {
      set_nonblocking(listener);
      return listener;
    }
  }
  throw Io(str("cannot listen at ", address.text(), ": ", system_says(), "; choose another port, or 0 for a free one"));
}

Address bound_address(const Socket& listener, const Address& asked) {
  Address bound = asked;
  if (asked.local) return bound;
  sockaddr_storage name{};
  socklen_t size = sizeof name;
  char port[16];
  if (getsockname(listener.fd(), reinterpret_cast<sockaddr*>(&name), &size) != 0 ||
      getnameinfo(reinterpret_cast<sockaddr*>(&name), size, nullptr, 0, port, sizeof port, NI_NUMERICSERV) != 0)
    throw Io("cannot tell the port of a listening socket");
  bound.port = port;
  return bound;
}

std::string host_of(const Socket& socket, bool peer) {
  sockaddr_storage name{};
  socklen_t size = sizeof name;
  char host[NI_MAXHOST];
  const int error = peer ? getpeername(socket.fd(), reinterpret_cast<sockaddr*>(&name), &size)
                         : getsockname(socket.fd(), reinterpret_cast<sockaddr*>(&name), &size);
  if (error != 0 || name.ss_family == AF_UNIX ||
      getnameinfo(reinterpret_cast<sockaddr*>(&name), size, host, sizeof host, nullptr, 0, NI_NUMERICHOST) != 0)
    return {};
  return host;
}

std::string name_of_peer(const Socket& socket) {
  const std::string host = host_of(socket, true);
  return host.empty() ? "a local process" : host;
}

Socket connect_to(const Address& address, Clock::time_point end, bool listens_already) {
  for (;;) {
    if (address.local) {
      Socket socket = open_socket(AF_UNIX);
      const sockaddr_un name = unix_address(address.host);
      if (try_connect(socket, reinterpret_cast<const sockaddr*>(&name), sizeof name, end)) return socket;
    } else {
      const Addresses list = look_up(address, false);
      for (const addrinfo* a = list.get(); a != nullptr; a = a->ai_next) {
        Socket socket = open_socket(a->ai_family);
        if (try_connect(socket, a->ai_addr, a->ai_addrlen, end)) return socket;
      }
    }
    const std::string why = system_says();
    if (listens_already || Clock::now() >= end)
      throw Io(str("cannot connect to ", address.text(), ": ", why, "; is rank 0 there?"));
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
}

Socket accept_from(const Socket& listener, Clock::time_point end) {
  while (wait_for(listener.fd(), POLLIN, end)) {
    Socket socket(accept4(listener.fd(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!socket) continue;
    const int yes = 1;
    setsockopt(socket.fd(), IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);  // means nothing to a Unix socket
    return socket;
  }
  return Socket();
}

void set_nonblocking(const Socket& socket) { fcntl(socket.fd(), F_SETFL, fcntl(socket.fd(), F_GETFL) | O_NONBLOCK); }

int poll_timeout(Clock::time_point end) noexcept {
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(end - Clock::now()).count();
  return static_cast<int>(std::clamp<long long>(left, 0, 1'000'000'000));
}

void send_all(const Socket& to, std::span<const std::byte> bytes, Clock::time_point end, const std::string& peer) {
  while (!bytes.empty()) {
    const ssize_t sent = send(to.fd(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent > 0) {
      bytes = bytes.subspan(static_cast<std::size_t>(sent));
    } else if (errno == EINTR) {
      continue;
    } else if (errno != EAGAIN || !wait_for(to.fd(), POLLOUT, end)) {
      failed("sending to", peer, end);
    }
  }
}

void receive_all(const Socket& from, std::span<std::byte> bytes, Clock::time_point end, const std::string& peer) {
  const std::size_t size = bytes.size();
  while (!bytes.empty()) {
    const ssize_t got = recv(from.fd(), bytes.data(), bytes.size(), 0);
    if (got > 0) {
      bytes = bytes.subspan(static_cast<std::size_t>(got));
    } else if (got == 0) {
      throw Io(str(peer, " closed the connection", bytes.size() < size ? " within a message" : ""));
    } else if (errno == EINTR) {
      continue;
    } else if (errno != EAGAIN || !wait_for(from.fd(), POLLIN, end)) {
      failed("hearing from", peer, end);
    }
  }
}

void send_frame(const Socket& to, FrameKind kind, int sender, std::span<const std::byte> payload, Clock::time_point end,
                const std::string& peer) {
  const HeaderBytes header = encode({kind, sender, 0, payload.size()});
  std::vector<std::byte> bytes(header.begin(), header.end());
  bytes.insert(bytes.end(), payload.begin(), payload.end());
  send_all(to, bytes, end, peer);
}

std::pair<FrameHeader, std::vector<std::byte>> receive_frame(const Socket& from, Clock::time_point end,
                                                             const std::string& peer) {
  HeaderBytes bytes;
  receive_all(from, bytes, end, peer);
  const FrameHeader header = decode(bytes);
  if (header.length > kMostControlBytes) throw Corrupt("the peer sent data before it was asked for any");
  std::vector<std::byte> payload(static_cast<std::size_t>(header.length));
  receive_all(from, payload, end, peer);
  return {header, std::move(payload)};
}

void send_descriptor(const Socket& to, int fd, Clock::time_point end, const std::string& peer) {
  char byte = 0;
  iovec piece{&byte, 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &piece;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  cmsghdr* const head = CMSG_FIRSTHDR(&message);
  head->cmsg_level = SOL_SOCKET;
  head->cmsg_type = SCM_RIGHTS;
  head->cmsg_len = CMSG_LEN(sizeof(int));
  std::memcpy(CMSG_DATA(head), &fd, sizeof fd);
  while (sendmsg(to.fd(), &message, MSG_NOSIGNAL) != 1)
    if (errno != EINTR && (errno != EAGAIN || !wait_for(to.fd(), POLLOUT, end))) failed("sending to", peer, end);
}

Socket receive_descriptor(const Socket& from, Clock::time_point end, const std::string& peer) {
  char byte = 0;
  iovec piece{&byte, 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &piece;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  for (ssize_t got; (got = recvmsg(from.fd(), &message, MSG_CMSG_CLOEXEC)) != 1;) {
    if (got == 0) throw Io(str(peer, " closed the connection"));
    if (errno != EINTR && (errno != EAGAIN || !wait_for(from.fd(), POLLIN, end))) failed("hearing from", peer, end);
  }
  const cmsghdr* const head = CMSG_FIRSTHDR(&message);
  if (head == nullptr || head->cmsg_type != SCM_RIGHTS) throw Corrupt(str(peer, " sent no shared memory"));
  int fd = -1;
  std::memcpy(&fd, CMSG_DATA(head), sizeof fd);
  return Socket(fd);
}

}  // namespace pagedcore::comm
