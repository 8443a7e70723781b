// The first words between two ranks: both prove that they have the token, and neither shows it. Each names a nonce; the
// proof is a digest over the token, both nonces and all that is said, so that nothing can be replayed or altered.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "comm/sockets.hpp"

namespace pagedcore::comm {

using Nonce = std::array<std::byte, 32>;
Nonce make_nonce();  // from the system's random numbers

enum class Purpose : std::uint8_t { join = 0, control = 1, data = 2 };  // the last two between members of a group

/// What who connects says.
struct Knock {
  Purpose purpose = Purpose::join;
  int rank = -1, ranks = 0;
  Nonce session{};      // of the group, once there is one
  std::string listens;  // where the others find it
  std::vector<std::pair<std::string, std::string>> alike;
};

/// What it is told.
struct Welcome {
  int rank = 0, ranks = 0;
  Nonce session{};
  std::vector<std::string> addresses;  // of every rank
};

/// Somebody who has proved to have the token, and waits for an answer.
struct Guest {
  Socket socket;
  std::string peer;  // for messages
  Nonce its_nonce{}, our_nonce{};
  Knock knock;
};

/// Listens, and hears several at once: who sends garbage, half a message or nothing holds up nobody.
class Door {
 public:
  Door(Socket listener, std::string token) : listener_(std::move(listener)), token_(std::move(token)) {}

  /// The next who has the token; none when nobody came before `end`.
  std::optional<Guest> next(Clock::time_point end);
  void welcome(Guest& guest, const Welcome& welcome, Clock::time_point end);
  void refuse(Guest& guest, const std::string& why);
  /// Who was turned away last and why; empty when nobody was.
  const std::string& last_refusal() const noexcept { return last_refusal_; }

 private:
  struct Pending {
    Socket socket;
    std::string peer;
    Nonce nonce;
    std::vector<std::byte> heard;
    Clock::time_point end;
  };
  void take_connection();
  std::optional<Guest> hear(Pending& pending, bool& over);
  void turn_away(const Socket& socket, const std::string& peer, const std::string& why);

  Socket listener_;
  std::string token_;
  std::vector<Pending> pending_;
  std::string last_refusal_;
};

/// Connects and knocks; the connection and the answer. Throws InvalidArgument when it is refused.
std::pair<Socket, Welcome> knock(Socket socket, const std::string& where, const Knock& knock, const std::string& token,
                                 Clock::time_point end);

}  // namespace pagedcore::comm
