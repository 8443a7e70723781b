// One file of a store: a head, then room for so many headers, then as many blocks. A block is written before its
// header, and both carry checksums, so whatever a crash leaves is either a block that verifies or none; the headers of
// a segment, which tell all that is in it, are read in one piece. Slots are filled in order and never written again.
//
//   [head, 4096 bytes][slots x header][slots x block]     all numbers little-endian
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "store/block_record.hpp"
#include "store/segment_files.hpp"

namespace pagedcore::store {

inline constexpr std::size_t kHeadBytes = 4096;

/// Where things are in a segment.
struct SegmentLayout {
  BlockFormat format;
  std::uint32_t slots = 0;

  std::uint64_t header_at(std::uint32_t slot) const noexcept {
    return kHeadBytes + std::uint64_t{slot} * header_bytes(format);
  }
  std::uint64_t block_at(std::uint32_t slot) const noexcept {
    return (header_at(slots) + 4095) / 4096 * 4096 + std::uint64_t{slot} * format.block_bytes;
  }
};

/// What was found of a block: by whom it is found, and where.
struct SlotEntry {
  BlockKey key{};
  std::uint32_t group = 0;
  std::uint32_t slot = 0;
};

class Segment {
 public:
  /// Opens one that is there. Throws Corrupt where its head is not that of this identity and format.
  Segment(std::string name, Descriptor file, const Identity& identity, const BlockFormat& format);
  /// Writes the head of a new, locked file. Throws Io.
  Segment(std::string name, Descriptor file, const Identity& identity, const SegmentLayout& layout);

  const std::string& name() const noexcept { return name_; }
  const SegmentLayout& layout() const noexcept { return layout_; }
  /// Slots of which it is known whether they hold a block.
  std::uint32_t used() const noexcept { return used_; }
  bool is_full() const noexcept { return used_ == layout_.slots; }

  /// The blocks in slots from used() on, up to the first that was never written; used() moves behind the last. Throws
  /// Io.
  std::vector<SlotEntry> scan();
  /// Nobody appends any more: others may remove it, or continue it.
  void unlock() const noexcept;

  /// Reads a block and verifies that it is this one. Throws Io, and Corrupt where it is not.
  void read(std::uint32_t slot, const BlockKey& key, std::uint32_t group, std::span<const TokenId> tokens,
            std::span<std::byte> out) const;
  /// Appends a block; returns its slot. Throws Io: then the slot is not used again, and what was written is cut off.
  std::uint32_t append(const BlockKey& key, std::uint32_t group, std::span<const TokenId> tokens,
                       std::span<const std::byte> bytes);
  /// Tells those who evict that it was of use.
  void touch() const noexcept;
  /// Asks the kernel to read these blocks ahead.
  void will_need(std::uint32_t first, std::uint32_t count) const noexcept;

 private:
  void read_all(std::uint64_t at, std::span<std::byte> out) const;
  void write_all(std::uint64_t at, std::span<const std::byte> bytes) const;

  std::string name_;
  Descriptor file_;
  SegmentLayout layout_;
  std::uint32_t used_ = 0;
};

}  // namespace pagedcore::store
