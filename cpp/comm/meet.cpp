#include "comm/meet.hpp"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <optional>
#include <span>
#include <thread>

#include "base/text.hpp"
#include "comm/calls.hpp"
#include "comm/handshake.hpp"
#include "pagedcore/error.hpp"
#include "pagedcore/version.hpp"

namespace pagedcore::comm {
namespace {

using Alike = std::vector<std::pair<std::string, std::string>>;

/// Why this rank cannot be of the group; empty when it can.
std::string difference(const Alike& ours, const Alike& its) {
  for (std::size_t i = 0; i < std::max(ours.size(), its.size()); ++i) {
    if (i >= its.size() || i >= ours.size() || ours[i].first != its[i].first)
      return "it compares other things than rank 0 does; run the same version of pagedcore everywhere";
    if (ours[i].second != its[i].second)
      return str("its ", ours[i].first, " is '", its[i].second, "' and rank 0's is '", ours[i].second,
                 "'; both must be the same");
  }
  return {};
}

bool has_left(const Socket& socket) {
  char byte;
  const ssize_t got = recv(socket.fd(), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
  return got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR);
}

bool has_word(const Socket& socket) {
  char byte;
  const ssize_t got = recv(socket.fd(), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
  return got >= 0 || (errno != EAGAIN && errno != EINTR);
}

class Meeting {
 public:
  Meeting(const Member& member, const char* transport, bool with_data)
      : member_(member),
        with_data_(with_data),
        alike_{
            {"version", version()}, {"transport", transport}, {"deadline", str(member.limits.deadline.count(), " ms")}},
        end_(Clock::now() + member.patience) {
    alike_.insert(alike_.end(), member.alike.begin(), member.alike.end());
    if (member.rank != 0) return;
    links_.ranks = member.ranks;
    links_.control.resize(static_cast<std::size_t>(member.ranks));
    links_.data.resize(static_cast<std::size_t>(member.ranks));
  }

  Links host() {
    const Address address(member_.address);
    Door door(listen_at(address), member_.token);
    if (address.local) path_ = address.host;
    std::vector<std::optional<Guest>> guests(static_cast<std::size_t>(member_.ranks));
    for (int missing = member_.ranks - 1; missing > 0;) {
      std::optional<Guest> guest = door.next(end_);
      if (!guest) throw_missing(guests, door);
      const std::string why = place(*guest, guests, missing);
      if (!why.empty()) door.refuse(*guest, why);
    }
    Welcome welcome{0, member_.ranks, make_nonce(), {address.text()}};
    for (std::size_t r = 1; r < guests.size(); ++r) welcome.addresses.push_back(guests[r]->knock.listens);
    for (std::size_t r = 1; r < guests.size(); ++r) {
      welcome.rank = static_cast<int>(r);
      door.welcome(*guests[r], welcome, end_);
      links_.control[r] = std::move(guests[r]->socket);
    }
    session_ = welcome.session;
    links_.control[0] = Socket();
    receive_links(door);
    return finish();
  }

  Links come() {
    const Address address(member_.address);
    Socket socket = connect_to(address, end_);
    Address mine = address;
    if (address.local) {
      mine.host += '.';
      const Nonce name = make_nonce();
      for (std::size_t i = 0; i < 8; ++i) mine.host += static_cast<char>('a' + std::to_integer<int>(name[i]) % 26);
      path_ = mine.host;
    } else {
      mine.host = host_of(socket, false);
      mine.port = "0";
    }
    Socket listener = listen_at(mine);
    mine = bound_address(listener, mine);
    Knock knocking{Purpose::join, member_.rank, member_.ranks, {}, mine.text(), alike_};
    auto [control, welcome] = knock(std::move(socket), address.text(), knocking, member_.token, end_);
    check(welcome);
    const auto ranks = static_cast<std::size_t>(welcome.ranks);
    links_.rank = welcome.rank;
    links_.ranks = welcome.ranks;
    links_.control.resize(ranks);
    links_.data.resize(ranks);
    links_.control[0] = std::move(control);
    session_ = welcome.session;
    welcome.addresses[0] = address.text();  // as it is seen from here
    for (std::size_t r = 0; r < static_cast<std::size_t>(links_.rank); ++r) {
      if (r > 0) links_.control[r] = link(welcome.addresses[r], Purpose::control);
      if (with_data_) links_.data[r] = link(welcome.addresses[r], Purpose::data);
    }
    Door door(std::move(listener), member_.token);
    receive_links(door);
    return finish();
  }

  ~Meeting() {
    if (!path_.empty()) unlink(path_.c_str());
  }

 private:
  /// Once every rank has all its links, all go on; before that a rank that is lost ends the meeting for all.
  Links finish() {
    std::vector<bool> ready(links_.control.size());
    if (links_.rank == 0) {
      for (std::size_t missing = ready.size() - 1; missing > 0;) {
        check_members();
        for (std::size_t r = 1; r < ready.size(); ++r) {
          if (ready[r] || !has_word(links_.control[r])) continue;
          receive_frame(links_.control[r], end_, str("rank ", r));
          ready[r] = true;
          --missing;
        }
        if (missing == 0) break;
        if (Clock::now() >= end_) end_for_all(first_not(ready), "did not finish joining in time");
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
      }
      for (std::size_t r = 1; r < ready.size(); ++r)
        send_frame(links_.control[r], FrameKind::accept, 0, {}, end_, str("rank ", r));
    } else {
      send_frame(links_.control[0], FrameKind::accept, links_.rank, {}, end_, "rank 0");
      hear_rank_0();
    }
    for (std::vector<Socket>* kind : {&links_.control, &links_.data})
      for (const Socket& socket : *kind)
        if (socket) set_nonblocking(socket);
    return std::move(links_);
  }

  static int first_not(const std::vector<bool>& ready) {
    int r = 1;
    while (ready[static_cast<std::size_t>(r)]) ++r;
    return r;
  }

  [[noreturn]] void end_for_all(int lost, const char* how) {
    const std::string why = str("rank ", lost, " is lost: it ", how);
    for (std::size_t r = 1; r < links_.control.size(); ++r) try {
        send_frame(links_.control[r], FrameKind::refuse, lost, std::as_bytes(std::span(why)), Clock::now(), "");
      } catch (const Io&) {  // that is the one
      }
    throw LostPeer(lost, why);
  }

  /// Whether those who have come are still there.
  void check_members() {
    if (links_.rank > 0) {
      if (has_word(links_.control[0])) hear_rank_0();
      return;
    }
    for (std::size_t r = 1; r < links_.control.size(); ++r)
      if (has_left(links_.control[r])) end_for_all(static_cast<int>(r), "left while the ranks met");
  }

  /// That all go on, or who is lost.
  void hear_rank_0() {
    const auto [header, payload] = [&] {
      try {
        return receive_frame(links_.control[0], end_, "rank 0");
      } catch (const Io& e) {
        throw LostPeer(0, str("rank 0 is lost: ", e.what()));
      }
    }();
    if (header.kind == FrameKind::accept) return;
    throw LostPeer(header.sender, std::string(reinterpret_cast<const char*>(payload.data()), payload.size()));
  }

  /// Gives the guest its place among the guests; or says why it gets none.
  std::string place(Guest& guest, std::vector<std::optional<Guest>>& guests, int& missing) {
    Knock& its = guest.knock;
    if (its.purpose != Purpose::join) return "it belongs to another group; start it again";
    if (std::string why = difference(alike_, its.alike); !why.empty()) return why;
    if (its.ranks != 0 && its.ranks != member_.ranks)
      return str("it expects ", its.ranks, " ranks and rank 0 expects ", member_.ranks);
    if (its.rank == -1)
      for (int r = 1; r < member_.ranks && its.rank == -1; ++r)
        if (!guests[static_cast<std::size_t>(r)]) its.rank = r;
    if (its.rank < 1 || its.rank >= member_.ranks)
      return str("rank ", its.rank, " has no place in a group of ", member_.ranks, " ranks; name 1 to ",
                 member_.ranks - 1);
    auto& seat = guests[static_cast<std::size_t>(its.rank)];
    if (seat && !has_left(seat->socket))
      return str("rank ", its.rank, " has joined already, from ", seat->peer, "; give every rank another number");
    if (!seat) --missing;
    const Address said(its.listens);
    if (!said.local) {
      Address seen = said;  // a rank may not know by which address others reach it
      seen.host = host_of(guest.socket, true);
      its.listens = seen.text();
    }
    seat.emplace(std::move(guest));
    return {};
  }

  [[noreturn]] void throw_missing(const std::vector<std::optional<Guest>>& guests, const Door& door) const {
    std::string who;
    int first = 0;
    for (std::size_t r = 1; r < guests.size(); ++r) {
      if (guests[r]) continue;
      if (first == 0) first = static_cast<int>(r);
      who += str(who.empty() ? "" : ", ", r);
    }
    const std::string& refused = door.last_refusal();
    throw LostPeer(first, str("of ", member_.ranks, " ranks these did not come within ", member_.patience.count(),
                              " ms: ", who, refused.empty() ? "" : "; turned away was ", refused));
  }

  void check(const Welcome& welcome) const {
    const bool sound = welcome.ranks >= 2 && welcome.ranks <= kMostRanks && welcome.rank >= 1 &&
                       welcome.rank < welcome.ranks &&
                       welcome.addresses.size() == static_cast<std::size_t>(welcome.ranks);
    if (!sound) throw Corrupt(str(member_.address, ": the group that rank 0 describes cannot be"));
  }

  Socket link(const std::string& where, Purpose purpose) const {
    const Knock knocking{purpose, links_.rank, links_.ranks, session_, {}, {}};
    return knock(connect_to(Address(where), end_, true), where, knocking, member_.token, end_).first;
  }

  /// The connections that ranks above this one make.
  void receive_links(Door& door) {
    const int above = links_.ranks - 1 - links_.rank;
    int missing = above * ((links_.rank > 0 ? 1 : 0) + (with_data_ ? 1 : 0));
    while (missing > 0) {
      std::optional<Guest> guest = door.next(std::min(end_, Clock::now() + std::chrono::milliseconds(20)));
      check_members();
      if (!guest && Clock::now() < end_) continue;
      if (!guest)
        throw LostPeer(links_.ranks - 1,
                       str("ranks did not connect to rank ", links_.rank, " within ", member_.patience.count(), " ms"));
      const Knock& its = guest->knock;
      auto& links = its.purpose == Purpose::data ? links_.data : links_.control;
      const bool expected = its.purpose != Purpose::join && its.session == session_ && its.rank > links_.rank &&
                            its.rank < links_.ranks && (its.purpose == Purpose::data ? with_data_ : links_.rank > 0);
      if (!expected || links[static_cast<std::size_t>(its.rank)]) {
        door.refuse(*guest, "the group is complete");
        continue;
      }
      door.welcome(*guest, {its.rank, links_.ranks, session_, {}}, end_);
      links[static_cast<std::size_t>(its.rank)] = std::move(guest->socket);
      --missing;
    }
  }

  const Member& member_;
  const bool with_data_;
  Alike alike_;
  const Clock::time_point end_;
  Nonce session_{};
  Links links_;
  std::string path_;
};

}  // namespace

std::string load_token(const std::string& path) {
  const Socket file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  struct stat status {};
  if (!file || fstat(file.fd(), &status) != 0)
    throw Io(str("cannot read the token file ", path, ": ", std::strerror(errno)));
  if ((status.st_mode & 077) != 0)
    throw InvalidArgument(str("the token file ", path, " is open to others than its owner; chmod 600 it"));
  char text[4096];
  const ssize_t size = read(file.fd(), text, sizeof text);
  std::string token(text, size > 0 ? static_cast<std::size_t>(size) : 0);
  const char* const white = " \t\r\n";
  const std::size_t first = token.find_first_not_of(white), last = token.find_last_not_of(white);
  token = first == std::string::npos ? "" : token.substr(first, last - first + 1);
  if (token.size() < 16)
    throw InvalidArgument(
        str("the token file ", path, " has ", token.size(), " characters; write at least 16 random ones"));
  return token;
}

Links meet(const Member& member, const char* transport, bool with_data) {
  if (member.rank == 0 || member.ranks != 0) check_group(member.ranks, member.limits);
  check_group(1, member.limits);
  if (member.rank < -1 || (member.ranks != 0 && member.rank >= member.ranks))
    throw InvalidArgument(str("rank ", member.rank, " has no place in a group of ", member.ranks, " ranks"));
  if (member.token.size() < 16)
    throw InvalidArgument(str("the token has ", member.token.size(), " characters; use at least 16 random ones"));
  Meeting meeting(member, transport, with_data);
  return member.rank == 0 ? meeting.host() : meeting.come();
}

}  // namespace pagedcore::comm
