// A group whose ranks are processes of one machine: bytes go through memory that all of them map.
#pragma once

#include <memory>

#include "comm/communicator.hpp"
#include "comm/meet.hpp"

namespace pagedcore::comm {

/// Meets the others at member.address, which is "unix:/path", and returns this rank's end. Throws as meet(); Io when
/// the system has no memory to share. The memory has no name: it is gone when the last rank is.
std::unique_ptr<Communicator> join_shared_memory(const Member& member);

}  // namespace pagedcore::comm
