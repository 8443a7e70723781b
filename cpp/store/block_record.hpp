// A block outside its engine: a header of fixed size, and the bytes that a backend keeps of it. The same header stands
// in a segment of a store and in what one engine sends to another.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "store/block_key.hpp"

namespace pagedcore::store {

/// What is the same for all blocks of an engine.
struct BlockFormat {
  std::uint32_t block_size = 0;  // tokens
  std::uint32_t groups = 1;      // of layers, each with blocks of its own
  std::size_t block_bytes = 0;   // of one block of one group

  friend bool operator==(const BlockFormat&, const BlockFormat&) = default;
};

/// Which block it is, and what its bytes sum up to.
struct BlockHeader {
  BlockKey key{};
  std::uint32_t group = 0;
  std::uint64_t checksum = 0;     // of the block's bytes
  std::vector<TokenId> tokens{};  // [block_size]
};

/// Bytes of a header, a multiple of 64.
std::size_t header_bytes(const BlockFormat& format) noexcept;
/// Writes all header_bytes().
void write_header(std::span<std::byte> out, const BlockFormat& format, const BlockKey& key, std::uint32_t group,
                  std::span<const TokenId> tokens, std::uint64_t checksum) noexcept;
/// False for what is no header of this format, complete and unchanged.
bool read_header(std::span<const std::byte> bytes, const BlockFormat& format, BlockHeader& header);

}  // namespace pagedcore::store
