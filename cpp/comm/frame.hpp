// How everything between two sockets is framed: a header of 32 bytes with a check of its own, then the payload.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace pagedcore::comm {

enum class FrameKind : std::uint8_t {
  hello = 1,  // who listens: its nonce
  join,       // who connects: who it is, and proof that it has the token
  accept,     // who listens: the group, and proof
  refuse,     // why not
  data,       // of a call: `place` is its word, the payload what is sent
  heartbeat,
  failure,  // why the group ended
  goodbye,  // the rank leaves
};

struct FrameHeader {
  FrameKind kind{};
  int sender = 0;            // its rank
  std::uint64_t place = 0;   // Place::word() of a call, 0 else
  std::uint64_t length = 0;  // bytes of the payload
};

inline constexpr std::size_t kHeaderBytes = 32;
/// The longest payload outside of calls. What a peer announces is never more than this before it has proved who it is.
inline constexpr std::uint64_t kMostControlBytes = 32 * 1024;

using HeaderBytes = std::array<std::byte, kHeaderBytes>;

HeaderBytes encode(const FrameHeader& header) noexcept;

/// Throws Corrupt when the bytes are no header, in words that begin with "the peer".
FrameHeader decode(const HeaderBytes& bytes);

/// FNV-1a of 32 bits.
std::uint32_t checksum(std::span<const std::byte> bytes) noexcept;

}  // namespace pagedcore::comm
