// The calls of a communicator, as transports name, number and check them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "comm/communicator.hpp"

namespace pagedcore::comm {

enum class Call : std::uint8_t { none, all_to_all, all_gather, broadcast, barrier };

const char* name_of(Call call) noexcept;

/// A rank's place in the order of calls, in one word that others read: its number from 1 up, the call, the root.
struct Place {
  std::uint64_t number = 0;
  Call call = Call::none;
  int root = 0;

  std::uint64_t word() const noexcept {
    return number << 16 | static_cast<std::uint64_t>(root) << 8 | static_cast<std::uint64_t>(call);
  }
  static Place of(std::uint64_t word) noexcept {
    return {word >> 16, static_cast<Call>(word & 0xff), static_cast<int>(word >> 8 & 0xff)};
  }
};

using SendSpans = std::span<const std::span<const std::byte>>;
using ReceiveSpans = std::span<const std::span<std::byte>>;

// What a caller may pass. They throw InvalidArgument; nothing has been said to any peer then.
void check_group(int ranks, const Limits& limits);
void check_all_to_all(const Communicator& group, SendSpans send, ReceiveSpans receive);
void check_all_gather(const Communicator& group, std::span<const std::byte> send, ReceiveSpans receive);
void check_root(const Communicator& group, int root);

/// A rank's own part: nothing when it is the same memory.
void copy_own(std::span<const std::byte> from, std::span<std::byte> to) noexcept;

}  // namespace pagedcore::comm
