#include "comm/watch.hpp"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <system_error>

#include "base/exception_memory.hpp"
#include "base/signals_blocked.hpp"
#include "base/text.hpp"
#include "comm/bytes.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore::comm {
namespace {

constexpr int kMostSilent = 4;  // periods; a rank counts its own, so that one which was itself stopped blames nobody

/// Of the process at the other end, where it is of this machine and the system can tell.
Socket process_of(const Socket& control) {
  ucred who{};
  socklen_t size = sizeof who;
  if (getsockopt(control.fd(), SOL_SOCKET, SO_PEERCRED, &who, &size) != 0 || who.pid <= 0) return Socket();
#ifdef SYS_pidfd_open
  return Socket(static_cast<int>(syscall(SYS_pidfd_open, who.pid, 0)));  // -1 is no socket: its connection still ends
#else
  return Socket();
#endif
}

}  // namespace

Watch::Watch(int rank, std::vector<Socket> control, const Limits& limits, std::function<void()> wake)
    : rank_(rank),
      period_(std::max<std::chrono::milliseconds>(limits.deadline / (kMostSilent + 1), std::chrono::milliseconds(100))),
      wake_(std::move(wake)),
      peers_(control.size()),
      stop_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  if (!stop_) throw Io(str("cannot make an eventfd: ", std::strerror(errno)));
  for (std::size_t r = 0; r < control.size(); ++r) {
    if (!control[r]) continue;
    set_nonblocking(control[r]);
    peers_[r].process = process_of(control[r]);
    peers_[r].control = std::move(control[r]);
  }
  try {
    const SignalsBlocked guard;
    thread_ = std::thread([this] { run(); });
  } catch (const std::system_error& e) {
    throw Io(str("cannot start a thread: ", e.what()));
  }
}

Watch::~Watch() {
  const std::uint64_t one = 1;
  static_cast<void>(!write(stop_.fd(), &one, sizeof one));
  thread_.join();
  tell(FrameKind::goodbye, {});  // after the word of a failure, which the thread may just have been sending
}

void Watch::throw_failure() const { comm::throw_failure(failure_); }

bool Watch::end_with(Failure why) noexcept {
  {
    const std::lock_guard lock(mutex_);
    if (failed_.load()) return false;
    failure_ = std::move(why);
    failed_.store(true);
  }
  wake_();
  return true;
}

void Watch::fail(Failure why) noexcept {
  if (!end_with(std::move(why))) return;
  try {
    std::vector<std::byte> bytes;
    ByteWriter writer(bytes);
    writer.fixed(static_cast<std::uint8_t>(failure_.kind));
    writer.fixed<std::int32_t>(failure_.rank);
    writer.text(std::string_view(failure_.what).substr(0, 1000));
    tell(FrameKind::failure, bytes);
  } catch (const std::bad_alloc&) {  // the others see this rank leave
  }
}

void Watch::tell(FrameKind kind, std::span<const std::byte> payload) noexcept {
  const HeaderBytes header = encode({kind, rank_, 0, payload.size()});
  const std::lock_guard lock(sending_);
  for (const Peer& peer : peers_) {
    if (!peer.control || peer.gone.load()) continue;
    iovec pieces[2] = {{const_cast<std::byte*>(header.data()), header.size()},
                       {const_cast<std::byte*>(payload.data()), payload.size()}};
    msghdr message{};
    message.msg_iov = pieces;
    message.msg_iovlen = payload.empty() ? 1 : 2;
    // A peer whose buffer is full has heard nothing for long. A frame that goes out in part ends the conversation.
    const ssize_t sent = sendmsg(peer.control.fd(), &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent > 0 && static_cast<std::size_t>(sent) < header.size() + payload.size())
      shutdown(peer.control.fd(), SHUT_WR);
  }
}

void Watch::lost(int rank, const std::string& how) {
  fail({Failure::Kind::lost, rank, str("rank ", rank, " is lost: ", how)});
}

void Watch::take(int rank, const FrameHeader& header, std::span<const std::byte> payload) {
  Peer& peer = peers_[static_cast<std::size_t>(rank)];
  switch (header.kind) {
    case FrameKind::heartbeat:
      return;
    case FrameKind::goodbye:
      peer.ended = true;
      peer.gone.store(true);
      return wake_();
    case FrameKind::failure: {
      ByteReader reader(payload, "the word of a failure");
      Failure failure;
      const auto kind = reader.fixed<std::uint8_t>();
      failure.kind =
          kind <= static_cast<int>(Failure::Kind::corrupt) ? static_cast<Failure::Kind>(kind) : Failure::Kind::aborted;
      failure.rank = reader.fixed<std::int32_t>();
      failure.what = reader.text();
      end_with(std::move(failure));
      return;
    }
    default:
      throw Corrupt("the peer sent what belongs elsewhere");
  }
}

void Watch::read_from(int rank) {
  Peer& peer = peers_[static_cast<std::size_t>(rank)];
  std::byte piece[4096];
  for (;;) {
    const ssize_t got = recv(peer.control.fd(), piece, sizeof piece, MSG_DONTWAIT);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) {
      peer.ended = true;
      return lost(rank, got == 0 ? "its process ended or its connection broke" : std::strerror(errno));
    }
    peer.silent = 0;
    peer.heard.insert(peer.heard.end(), piece, piece + got);
    try {
      std::size_t at = 0;
      while (!peer.ended && peer.heard.size() - at >= kHeaderBytes) {
        HeaderBytes start;
        std::copy_n(peer.heard.begin() + static_cast<std::ptrdiff_t>(at), kHeaderBytes, start.begin());
        const FrameHeader header = decode(start);
        if (header.length > kMostControlBytes || header.sender != rank)
          throw Corrupt("the peer sent what belongs elsewhere");
        const auto length = static_cast<std::size_t>(header.length);
        if (peer.heard.size() - at - kHeaderBytes < length) break;
        take(rank, header, std::span(peer.heard).subspan(at + kHeaderBytes, length));
        at += kHeaderBytes + length;
      }
      peer.heard.erase(peer.heard.begin(), peer.heard.begin() + static_cast<std::ptrdiff_t>(at));
    } catch (const Corrupt& e) {
      peer.ended = true;
      return fail({Failure::Kind::corrupt, rank, str("rank ", rank, ": ", e.what())});
    }
    if (peer.ended) return;
  }
}

void Watch::run() {
  take_exception_memory();
  Clock::time_point next = Clock::now() + period_;
  std::vector<pollfd> entries;
  while (true) {
    entries.assign(1, {stop_.fd(), POLLIN, 0});
    for (const Peer& peer : peers_) {  // a negative descriptor is passed over
      entries.push_back({peer.ended || failed() ? -1 : peer.control.fd(), POLLIN, 0});
      entries.push_back({peer.ended || failed() ? -1 : peer.process.fd(), POLLIN, 0});
    }
    poll(entries.data(), entries.size(), failed() ? -1 : poll_timeout(next));
    if (entries[0].revents != 0) return;
    try {
      for (int rank = 0; rank < static_cast<int>(peers_.size()) && !failed(); ++rank) {
        const auto at = static_cast<std::size_t>(rank);
        // A peer that said goodbye before its process ended has been heard first.
        if (entries[2 * at + 1].revents != 0 || entries[2 * at + 2].revents != 0) read_from(rank);
        if (entries[2 * at + 2].revents != 0 && !peers_[at].ended) {
          peers_[at].ended = true;
          lost(rank, "its process ended");
        }
      }
      if (Clock::now() < next || failed()) continue;
      next = Clock::now() + period_;
      tell(FrameKind::heartbeat, {});
      for (int rank = 0; rank < static_cast<int>(peers_.size()); ++rank) {
        Peer& peer = peers_[static_cast<std::size_t>(rank)];
        if (peer.control && !peer.ended && ++peer.silent > kMostSilent)
          lost(rank, str("it has said nothing for ", kMostSilent * period_.count(),
                         " ms; its process is stopped, or its machine cannot be reached"));
      }
    } catch (const std::bad_alloc&) {
      end_with({Failure::Kind::aborted, rank_, {}});
    }
  }
}

}  // namespace pagedcore::comm
