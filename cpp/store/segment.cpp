#include "store/segment.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/checksum.hpp"
#include "base/text.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore::store {
namespace {

constexpr std::uint64_t kMagic = 0x3153'564b'4445'4750u;  // "PGEDKVS1"

struct Head {
  std::uint64_t magic = kMagic;
  std::uint32_t slots = 0;
  std::uint32_t block_size = 0;
  std::uint32_t groups = 0;
  std::uint32_t text_bytes = 0;
  std::uint64_t block_bytes = 0;
  Digest identity{};
};
constexpr std::size_t kHeadEnd = kHeadBytes - sizeof(std::uint64_t);  // where its checksum is
constexpr std::uint32_t kMostSlots = 1u << 20;

}  // namespace

void Segment::read_all(std::uint64_t at, std::span<std::byte> out) const {
  for (std::size_t done = 0; done < out.size();) {
    const ssize_t count = ::pread(file_.get(), out.data() + done, out.size() - done, static_cast<off_t>(at + done));
    if (count > 0) {
      done += static_cast<std::size_t>(count);
    } else if (count == 0) {
      throw Corrupt(str("kv_store: ", name_, " ends before byte ", at + out.size()));
    } else if (errno != EINTR) {
      throw Io(system_error(name_, str(out.size(), " bytes at ", at, " cannot be read"), errno));
    }
  }
}

void Segment::write_all(std::uint64_t at, std::span<const std::byte> bytes) const {
  for (std::size_t done = 0; done < bytes.size();) {
    const ssize_t count =
        ::pwrite(file_.get(), bytes.data() + done, bytes.size() - done, static_cast<off_t>(at + done));
    if (count > 0) {
      done += static_cast<std::size_t>(count);
    } else if (count == 0 || errno != EINTR) {
      throw Io(
          system_error(name_, str(bytes.size(), " bytes at ", at, " cannot be written"), count == 0 ? EIO : errno));
    }
  }
}

Segment::Segment(std::string name, Descriptor file, const Identity& identity, const BlockFormat& format)
    : name_(std::move(name)), file_(std::move(file)) {
  std::vector<std::byte> bytes(kHeadBytes);
  read_all(0, bytes);
  Head head;
  std::uint64_t sum = 0;
  std::memcpy(&head, bytes.data(), sizeof(head));
  std::memcpy(&sum, bytes.data() + kHeadEnd, sizeof(sum));
  const BlockFormat found{head.block_size, head.groups, static_cast<std::size_t>(head.block_bytes)};
  if (head.magic != kMagic || sum != checksum(std::span(bytes).first(kHeadEnd)) || head.identity != identity.digest ||
      found != format || head.slots == 0 || head.slots > kMostSlots)
    throw Corrupt(str("kv_store: ", name_, " is no segment of this model and these options"));
  layout_ = {format, head.slots};
}

Segment::Segment(std::string name, Descriptor file, const Identity& identity, const SegmentLayout& layout)
    : name_(std::move(name)), file_(std::move(file)), layout_(layout) {
  std::vector<std::byte> bytes(kHeadBytes);
  const std::string text = identity.text.substr(0, kHeadEnd - sizeof(Head));
  const Head head{.slots = layout.slots,
                  .block_size = layout.format.block_size,
                  .groups = layout.format.groups,
                  .text_bytes = static_cast<std::uint32_t>(text.size()),
                  .block_bytes = layout.format.block_bytes,
                  .identity = identity.digest};
  std::memcpy(bytes.data(), &head, sizeof(head));
  std::memcpy(bytes.data() + sizeof(head), text.data(), text.size());
  const std::uint64_t sum = checksum(std::span(bytes).first(kHeadEnd));
  std::memcpy(bytes.data() + kHeadEnd, &sum, sizeof(sum));
  write_all(0, bytes);
}

std::vector<SlotEntry> Segment::scan() {
  std::vector<SlotEntry> found;
  const std::size_t step = header_bytes(layout_.format);
  struct stat status {};
  if (::fstat(file_.get(), &status) != 0) throw Io(system_error(name_, "cannot be looked at", errno));
  const auto size = static_cast<std::uint64_t>(status.st_size);
  std::vector<std::byte> bytes;
  BlockHeader header;
  while (used_ < layout_.slots) {
    // In pieces of 256 headers: a large segment with few blocks is mostly a hole.
    const std::uint32_t count = std::min(layout_.slots - used_, 256u);
    const std::uint64_t at = layout_.header_at(used_);
    if (at + count * step > size && at + step > size) return found;
    const auto there = static_cast<std::uint32_t>(std::min<std::uint64_t>(count, (size - at) / step));
    bytes.resize(there * step);
    read_all(at, bytes);
    std::uint32_t last = 0;  // one behind the last header that was ever written
    std::vector<SlotEntry> piece;
    for (std::uint32_t i = 0; i < there; ++i) {
      const auto one = std::span(bytes).subspan(i * step, step);
      if (std::ranges::all_of(one, [](std::byte b) { return b == std::byte{0}; })) continue;
      last = i + 1;
      const bool is_whole = layout_.block_at(used_ + i + 1) <= size;
      if (is_whole && read_header(one, layout_.format, header)) piece.push_back({header.key, header.group, used_ + i});
    }
    found.insert(found.end(), piece.begin(), piece.end());
    used_ += last;
    if (last < count) return found;
  }
  return found;
}

void Segment::read(std::uint32_t slot, const BlockKey& key, std::uint32_t group, std::span<const TokenId> tokens,
                   std::span<std::byte> out) const {
  std::vector<std::byte> bytes(header_bytes(layout_.format));
  read_all(layout_.header_at(slot), bytes);
  BlockHeader header;
  if (!read_header(bytes, layout_.format, header) || header.key != key || header.group != group ||
      !std::ranges::equal(header.tokens, tokens))
    throw Corrupt(str("kv_store: slot ", slot, " of ", name_, " holds another block than was written there"));
  read_all(layout_.block_at(slot), out);
  if (checksum(out) != header.checksum)
    throw Corrupt(str("kv_store: slot ", slot, " of ", name_, " returns other bytes than were written"));
}

std::uint32_t Segment::append(const BlockKey& key, std::uint32_t group, std::span<const TokenId> tokens,
                              std::span<const std::byte> bytes) {
  const std::uint32_t slot = used_++;
  std::vector<std::byte> header(header_bytes(layout_.format));
  write_header(header, layout_.format, key, group, tokens, checksum(bytes));
  try {
    write_all(layout_.block_at(slot), bytes);
    write_all(layout_.header_at(slot), header);
  } catch (const Io&) {
    // A full disk gets back what half a block took; if that fails too it is cut off when the segment goes.
    static_cast<void>(::ftruncate(file_.get(), static_cast<off_t>(layout_.block_at(slot))));
    throw;
  }
  return slot;
}

void Segment::unlock() const noexcept { static_cast<void>(::flock(file_.get(), LOCK_UN)); }

void Segment::touch() const noexcept { static_cast<void>(::futimens(file_.get(), nullptr)); }

void Segment::will_need(std::uint32_t first, std::uint32_t count) const noexcept {
#if defined(POSIX_FADV_WILLNEED)
  static_cast<void>(::posix_fadvise(file_.get(), static_cast<off_t>(layout_.block_at(first)),
                                    static_cast<off_t>(layout_.format.block_bytes * count), POSIX_FADV_WILLNEED));
#endif
}

}  // namespace pagedcore::store
