// SHA-256 (FIPS 180-4) and HMAC over it (RFC 2104).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace pagedcore {

using Digest = std::array<std::byte, 32>;

/// Of what add() was given so far, in pieces of any size.
class Sha256Stream {
 public:
  Sha256Stream() noexcept;
  void add(std::span<const std::byte> bytes) noexcept;
  /// Once; nothing may be added afterwards.
  Digest finish() noexcept;

 private:
  void block(const std::byte* at) noexcept;

  std::array<std::uint32_t, 8> state_;
  std::array<std::byte, 64> rest_;
  std::uint64_t length_ = 0;
};

Digest sha256(std::span<const std::byte> bytes) noexcept;
Digest hmac_sha256(std::span<const std::byte> key, std::span<const std::byte> message) noexcept;

/// Whether both are the same, in a time that says nothing of where they differ.
bool same_digest(const Digest& a, const Digest& b) noexcept;

}  // namespace pagedcore
