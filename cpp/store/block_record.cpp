#include "store/block_record.hpp"

#include <algorithm>
#include <cstring>

#include "base/checksum.hpp"

namespace pagedcore::store {
namespace {

constexpr std::uint64_t kMagic = 0x314b'434f'4c42'4350u;  // "PCBLOCK1"

struct Fixed {
  std::uint64_t magic = kMagic;
  BlockKey key{};
  std::uint32_t group = 0;
  std::uint32_t num_tokens = 0;
  std::uint64_t block_bytes = 0;
  std::uint64_t checksum = 0;
};

}  // namespace

std::size_t header_bytes(const BlockFormat& format) noexcept {
  const std::size_t bytes = sizeof(Fixed) + format.block_size * sizeof(TokenId) + sizeof(std::uint64_t);
  return (bytes + 63) / 64 * 64;
}

void write_header(std::span<std::byte> out, const BlockFormat& format, const BlockKey& key, std::uint32_t group,
                  std::span<const TokenId> tokens, std::uint64_t sum) noexcept {
  const Fixed fixed{.key = key,
                    .group = group,
                    .num_tokens = static_cast<std::uint32_t>(tokens.size()),
                    .block_bytes = format.block_bytes,
                    .checksum = sum};
  std::ranges::fill(out, std::byte{0});
  std::memcpy(out.data(), &fixed, sizeof(fixed));
  std::memcpy(out.data() + sizeof(fixed), tokens.data(), tokens.size_bytes());
  const std::size_t end = header_bytes(format) - sizeof(std::uint64_t);
  const std::uint64_t own = checksum(out.first(end));
  std::memcpy(out.data() + end, &own, sizeof(own));
}

bool read_header(std::span<const std::byte> bytes, const BlockFormat& format, BlockHeader& header) {
  if (bytes.size() < header_bytes(format)) return false;
  const std::size_t end = header_bytes(format) - sizeof(std::uint64_t);
  std::uint64_t own = 0;
  std::memcpy(&own, bytes.data() + end, sizeof(own));
  Fixed fixed;
  std::memcpy(&fixed, bytes.data(), sizeof(fixed));
  if (fixed.magic != kMagic || fixed.num_tokens != format.block_size || fixed.block_bytes != format.block_bytes ||
      fixed.group >= format.groups || own != checksum(bytes.first(end)))
    return false;
  header.key = fixed.key;
  header.group = fixed.group;
  header.checksum = fixed.checksum;
  header.tokens.resize(fixed.num_tokens);
  std::memcpy(header.tokens.data(), bytes.data() + sizeof(fixed), fixed.num_tokens * sizeof(TokenId));
  return true;
}

}  // namespace pagedcore::store
