#include "comm/frame.hpp"

#include <bit>
#include <cstring>

#include "base/text.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore::comm {
namespace {

static_assert(std::endian::native == std::endian::little, "frames are written as they lie in memory");

constexpr std::uint32_t kMagic = 0x4d4f4350;  // "PCOM"
constexpr std::uint8_t kVersion = 1;

struct Layout {
  std::uint32_t magic;
  std::uint8_t version;
  std::uint8_t kind;
  std::uint16_t sender;
  std::uint64_t place;
  std::uint64_t length;
  std::uint32_t reserved;
  std::uint32_t check;  // of all before it
};
static_assert(sizeof(Layout) == kHeaderBytes);

std::uint32_t check_of(const HeaderBytes& bytes) noexcept {
  return checksum(std::span(bytes).first(offsetof(Layout, check)));
}

}  // namespace

std::uint32_t checksum(std::span<const std::byte> bytes) noexcept {
  std::uint32_t hash = 2166136261u;
  for (const std::byte b : bytes) hash = (hash ^ std::to_integer<std::uint32_t>(b)) * 16777619u;
  return hash;
}

HeaderBytes encode(const FrameHeader& header) noexcept {
  Layout layout{kMagic,
                kVersion,
                static_cast<std::uint8_t>(header.kind),
                static_cast<std::uint16_t>(header.sender),
                header.place,
                header.length,
                0,
                0};
  auto bytes = std::bit_cast<HeaderBytes>(layout);
  layout.check = check_of(bytes);
  return std::bit_cast<HeaderBytes>(layout);
}

FrameHeader decode(const HeaderBytes& bytes) {
  const auto layout = std::bit_cast<Layout>(bytes);
  if (layout.magic != kMagic) throw Corrupt("the peer sent what is no frame of pagedcore");
  if (layout.version != kVersion)
    throw Corrupt(str("the peer frames in version ", int{layout.version}, ", this one in version ", int{kVersion},
                      "; run the same version of pagedcore everywhere"));
  if (layout.check != check_of(bytes))
    throw Corrupt("the peer sent a damaged frame: its header does not match its check");
  if (layout.kind < static_cast<int>(FrameKind::hello) || layout.kind > static_cast<int>(FrameKind::goodbye) ||
      layout.reserved != 0)
    throw Corrupt(str("the peer sent a frame of the unknown kind ", int{layout.kind}));
  const auto kind = static_cast<FrameKind>(layout.kind);
  if (kind != FrameKind::data && layout.length > kMostControlBytes)
    throw Corrupt(str("the peer announced ", layout.length, " bytes where at most ", kMostControlBytes, " may come"));
  return {kind, layout.sender, layout.place, layout.length};
}

}  // namespace pagedcore::comm
