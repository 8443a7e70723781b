// How ranks that are processes find one another: rank 0 listens, the others come, prove that they have the token, and
// say what they are. Then every two of them have connections of their own.
#pragma once

#include <chrono>
#include <string>
#include <utility>
#include <vector>

#include "comm/communicator.hpp"
#include "comm/sockets.hpp"

namespace pagedcore::comm {

/// What one rank brings to a meeting.
struct Member {
  std::string address;  // where rank 0 listens: "host:port", or "unix:/path" for ranks of one machine
  int rank = -1;        // 0 listens; -1: any that is free
  int ranks = 0;        // how many there will be; 0: as rank 0 says
  std::string token;    // the secret of the group: load_token()
  /// What must be the same everywhere, by name: version, model, options. The library's version is compared anyway.
  std::vector<std::pair<std::string, std::string>> alike;
  /// How long a rank waits for the others to come.
  std::chrono::milliseconds patience{60'000};
  Limits limits;
};

/// The secret in a file: its text without white space around it. Throws InvalidArgument when it has less than 16
/// characters, or when others than its owner may read or write the file; Io when it cannot be read.
std::string load_token(const std::string& path);

struct Links {
  int rank = 0, ranks = 1;
  std::vector<Socket> control, data;  // to each rank; none to itself, and no data links where they were not asked for
};

/// Throws InvalidArgument when this rank is refused, with rank 0's reason; LostPeer when ranks do not come in time; Io
/// when nobody listens or the address is in use; Corrupt when whoever listens does not speak this protocol.
Links meet(const Member& member, const char* transport, bool with_data);

}  // namespace pagedcore::comm
