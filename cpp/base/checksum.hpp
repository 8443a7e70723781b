// A checksum for what leaves memory and comes back: blocks in a swap file or a store.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace pagedcore {

/// The four 64-bit lanes of a checksum: independent multiply-and-rotate lanes over 32-byte pieces, so that it runs at
/// memory speed. Any change confined to one 8-byte word is detected for certain, since every step is invertible.
std::array<std::uint64_t, 4> checksum_lanes(std::span<const std::byte> bytes) noexcept;

/// The same in 64 bits.
std::uint64_t checksum(std::span<const std::byte> bytes) noexcept;

}  // namespace pagedcore
