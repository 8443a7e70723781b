// A group whose ranks are processes of one machine: bytes go through memory that all of them map.
#pragma once

#include <cstddef>
#include <memory>
#include <span>

#include "comm/communicator.hpp"
#include "comm/meet.hpp"

namespace pagedcore::comm {

class SharedMemoryGroup : public Communicator {
 public:
  /// Memory of this rank, zeroed, aligned to 64 bytes, for as long as the group lives: the others read what is sent
  /// from it where it is. Throws OutOfMemory beyond 256 MiB in all. One thread at a time.
  virtual std::span<std::byte> memory(std::size_t bytes) = 0;
};

/// Meets the others at member.address, which is "unix:/path", and returns this rank's end. Throws as meet(); Io when
/// the system has no memory to share. The memory has no name: it is gone when the last rank is.
std::unique_ptr<SharedMemoryGroup> join_shared_memory(const Member& member);

}  // namespace pagedcore::comm
