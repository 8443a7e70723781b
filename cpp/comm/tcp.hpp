// A group whose ranks are processes, on one machine or on several: bytes go through connections of their own between
// every two ranks.
#pragma once

#include <memory>

#include "comm/communicator.hpp"
#include "comm/meet.hpp"

namespace pagedcore::comm {

/// Meets the others and returns this rank's end. Throws as meet(). Who may send to these ports but is no rank is turned
/// away; what ranks send is neither encrypted nor signed: the network between them must be trusted.
std::unique_ptr<Communicator> join_tcp(const Member& member);

}  // namespace pagedcore::comm
