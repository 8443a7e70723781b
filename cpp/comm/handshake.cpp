#include "comm/handshake.hpp"

#include <poll.h>
#include <sys/random.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>

#include "base/sha256.hpp"
#include "base/text.hpp"
#include "comm/bytes.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore::comm {
namespace {

constexpr std::chrono::seconds kMostSilence{5};  // of one who has connected and not yet said who it is
constexpr std::size_t kMostPending = 64;

std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

Digest proof(const std::string& token, const char* role, const Nonce& listener, const Nonce& caller,
             std::span<const std::byte> said) {
  std::vector<std::byte> message;
  ByteWriter writer(message);
  writer.text(role);
  writer.raw(listener);
  writer.raw(caller);
  writer.raw(said);
  return hmac_sha256(bytes_of(token), message);
}

Nonce read_nonce(ByteReader& reader) {
  Nonce nonce;
  const auto bytes = reader.raw(nonce.size());
  std::copy(bytes.begin(), bytes.end(), nonce.begin());
  return nonce;
}

constexpr const char *kCaller = "pagedcore: a rank joins", *kListener = "pagedcore: a rank is welcome";

/// Without what would move a terminal's cursor: a refusal comes from whoever listens.
std::string printable(std::string text) {
  std::replace_if(
      text.begin(), text.end(), [](unsigned char c) { return c < 32 || c == 127; }, '?');
  return text.substr(0, 500);
}

}  // namespace

Nonce make_nonce() {
  Nonce nonce;
  for (std::size_t have = 0; have < nonce.size();) {
    const ssize_t got = getrandom(nonce.data() + have, nonce.size() - have, 0);
    if (got > 0)
      have += static_cast<std::size_t>(got);
    else if (errno != EINTR)
      throw Io("the system has no random numbers");
  }
  return nonce;
}

void Door::turn_away(const Socket& socket, const std::string& peer, const std::string& why) {
  last_refusal_ = str(peer, ": ", why);
  try {
    send_frame(socket, FrameKind::refuse, 0, bytes_of(why), Clock::now() + std::chrono::milliseconds(100), peer);
  } catch (const Io&) {  // it has gone by itself
  }
}

void Door::refuse(Guest& guest, const std::string& why) { turn_away(guest.socket, guest.peer, why); }

void Door::take_connection() {
  Socket socket = accept_from(listener_, Clock::now());
  if (!socket) return;
  if (pending_.size() == kMostPending) pending_.erase(pending_.begin());  // the one that was silent for longest
  Pending entry{std::move(socket), {}, make_nonce(), {}, Clock::now() + kMostSilence};
  entry.peer = name_of_peer(entry.socket);
  try {
    send_frame(entry.socket, FrameKind::hello, 0, entry.nonce, Clock::now(), entry.peer);
    pending_.push_back(std::move(entry));
  } catch (const Io&) {
  }
}

std::optional<Guest> Door::hear(Pending& pending, bool& over) {
  std::byte piece[4096];
  const ssize_t got = recv(pending.socket.fd(), piece, sizeof piece, MSG_DONTWAIT);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return std::nullopt;
  over = true;
  if (got <= 0) {
    last_refusal_ =
        str(pending.peer, ": it left ", pending.heard.empty() ? "without a word" : "within its first message");
    return std::nullopt;
  }
  pending.heard.insert(pending.heard.end(), piece, piece + got);
  try {
    if (pending.heard.size() < kHeaderBytes) return over = false, std::nullopt;
    HeaderBytes start;
    std::copy_n(pending.heard.begin(), kHeaderBytes, start.begin());
    const FrameHeader header = decode(start);
    if (header.kind != FrameKind::join) throw Corrupt("the peer did not say who it is");
    const std::size_t size = kHeaderBytes + static_cast<std::size_t>(header.length);
    if (pending.heard.size() < size) return over = false, std::nullopt;
    if (pending.heard.size() > size || header.length < sizeof(Digest))
      throw Corrupt("the peer's first message has another length than it says");
    const std::span<const std::byte> payload(pending.heard.data() + kHeaderBytes, size - kHeaderBytes);
    const auto said = payload.first(payload.size() - sizeof(Digest));
    Guest guest{Socket(), pending.peer, {}, pending.nonce, {}};
    ByteReader reader(said, "the peer's first message");
    guest.its_nonce = read_nonce(reader);
    Digest shown;
    std::copy_n(payload.end() - sizeof(Digest), sizeof(Digest), shown.begin());
    if (!same_digest(shown, proof(token_, kCaller, pending.nonce, guest.its_nonce, said)))
      throw Corrupt("its token is another one; give every rank the same token file");
    Knock& knock = guest.knock;
    knock.purpose = static_cast<Purpose>(reader.fixed<std::uint8_t>());
    knock.rank = reader.fixed<std::int32_t>();
    knock.ranks = reader.fixed<std::int32_t>();
    knock.session = read_nonce(reader);
    knock.listens = reader.text();
    for (std::size_t n = reader.count(2); n > 0; --n) {
      std::string name = reader.text();
      knock.alike.emplace_back(std::move(name), reader.text());
    }
    reader.end();
    guest.socket = std::move(pending.socket);
    return guest;
  } catch (const Corrupt& e) {
    turn_away(pending.socket, pending.peer, e.what());
  }
  return std::nullopt;
}

std::optional<Guest> Door::next(Clock::time_point end) {
  for (;;) {
    Clock::time_point soonest = end;
    std::vector<pollfd> entries{{listener_.fd(), POLLIN, 0}};
    for (const Pending& pending : pending_) {
      entries.push_back({pending.socket.fd(), POLLIN, 0});
      soonest = std::min(soonest, pending.end);
    }
    poll(entries.data(), entries.size(), poll_timeout(soonest));
    for (std::size_t i = 0; i < pending_.size();) {
      bool over = false;
      std::optional<Guest> guest;
      if (entries[i + 1].revents != 0) guest = hear(pending_[i], over);
      if (!over && Clock::now() >= pending_[i].end) {
        over = true;
        turn_away(pending_[i].socket, pending_[i].peer, "it did not say who it is within 5 s");
      }
      if (over) {
        pending_.erase(pending_.begin() + static_cast<std::ptrdiff_t>(i));
        entries.erase(entries.begin() + static_cast<std::ptrdiff_t>(i) + 1);
      } else {
        ++i;
      }
      if (guest) return guest;
    }
    if (entries[0].revents != 0) take_connection();
    if (Clock::now() >= end) return std::nullopt;
  }
}

void Door::welcome(Guest& guest, const Welcome& welcome, Clock::time_point end) {
  std::vector<std::byte> said;
  ByteWriter writer(said);
  writer.fixed<std::int32_t>(welcome.rank);
  writer.fixed<std::int32_t>(welcome.ranks);
  writer.raw(welcome.session);
  writer.number(welcome.addresses.size());
  for (const std::string& address : welcome.addresses) writer.text(address);
  writer.raw(proof(token_, kListener, guest.our_nonce, guest.its_nonce, said));
  send_frame(guest.socket, FrameKind::accept, 0, said, end, guest.peer);
}

std::pair<Socket, Welcome> knock(Socket socket, const std::string& where, const Knock& knock, const std::string& token,
                                 Clock::time_point end) {
  try {
    auto [hello, its] = receive_frame(socket, end, where);
    if (hello.kind != FrameKind::hello || its.size() != sizeof(Nonce)) throw Corrupt("the peer sent no greeting");
    Nonce listener;
    std::copy(its.begin(), its.end(), listener.begin());
    const Nonce caller = make_nonce();
    std::vector<std::byte> said;
    ByteWriter writer(said);
    writer.raw(caller);
    writer.fixed(static_cast<std::uint8_t>(knock.purpose));
    writer.fixed<std::int32_t>(knock.rank);
    writer.fixed<std::int32_t>(knock.ranks);
    writer.raw(knock.session);
    writer.text(knock.listens);
    writer.number(knock.alike.size());
    for (const auto& [name, value] : knock.alike) {
      writer.text(name);
      writer.text(value);
    }
    if (said.size() + sizeof(Digest) > kMostControlBytes)
      throw InvalidArgument(str("what a rank says of itself takes ", said.size(), " bytes; at most ",
                                kMostControlBytes - sizeof(Digest), " may be said"));
    writer.raw(proof(token, kCaller, listener, caller, said));
    send_frame(socket, FrameKind::join, std::max(knock.rank, 0), said, end, where);
    const auto [answer, payload] = receive_frame(socket, end, where);
    if (answer.kind == FrameKind::refuse)
      throw InvalidArgument(str("rank 0 at ", where, " refused this rank: ",
                                printable({reinterpret_cast<const char*>(payload.data()), payload.size()})));
    if (answer.kind != FrameKind::accept || payload.size() < sizeof(Digest)) throw Corrupt("the peer sent no answer");
    const auto told = std::span(payload).first(payload.size() - sizeof(Digest));
    Digest shown;
    std::copy_n(payload.end() - sizeof(Digest), sizeof(Digest), shown.begin());
    if (!same_digest(shown, proof(token, kListener, listener, caller, told)))
      throw Corrupt("the peer could not prove that it has the token");
    Welcome welcome;
    ByteReader reader(told, "the peer's answer");
    welcome.rank = reader.fixed<std::int32_t>();
    welcome.ranks = reader.fixed<std::int32_t>();
    welcome.session = read_nonce(reader);
    for (std::size_t n = reader.count(); n > 0; --n) welcome.addresses.push_back(reader.text());
    reader.end();
    return {std::move(socket), std::move(welcome)};
  } catch (const Corrupt& e) {
    throw Corrupt(str(where, ": ", e.what()));
  }
}

}  // namespace pagedcore::comm
