// Numbers and texts as bytes, and back with every length checked: what ranks say to one another outside of tensors.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/text.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore::comm {

/// Appends to a vector of the caller's, which keeps its capacity. Numbers are little-endian, as the machines are.
class ByteWriter {
 public:
  explicit ByteWriter(std::vector<std::byte>& to) noexcept : to_(to) {}

  void raw(std::span<const std::byte> bytes) {
    if (bytes.empty()) return;
    to_.resize(to_.size() + bytes.size());
    std::memcpy(to_.data() + (to_.size() - bytes.size()), bytes.data(), bytes.size());
  }
  template <class T>
  void fixed(T value) {
    static_assert(std::is_trivially_copyable_v<T>);
    raw(std::as_bytes(std::span(&value, 1)));
  }
  /// 7 bits a byte, the lowest first.
  void number(std::uint64_t value) {
    for (; value >= 0x80; value >>= 7) to_.push_back(static_cast<std::byte>(value | 0x80));
    to_.push_back(static_cast<std::byte>(value));
  }
  /// Small whatever its sign: 0, -1, 1, -2 ... become 0, 1, 2, 3.
  void signed_number(std::int64_t value) {
    number(static_cast<std::uint64_t>(value) << 1 ^ static_cast<std::uint64_t>(value >> 63));
  }
  void text(std::string_view text) {
    number(text.size());
    raw(std::as_bytes(std::span(text.data(), text.size())));
  }

 private:
  std::vector<std::byte>& to_;
};

/// Throws Corrupt, which says what was read and where it ended, instead of reading past the end.
class ByteReader {
 public:
  ByteReader(std::span<const std::byte> bytes, const char* what) noexcept : bytes_(bytes), what_(what) {}

  std::size_t left() const noexcept { return bytes_.size() - at_; }
  std::span<const std::byte> raw(std::size_t size) {
    if (size > left())
      throw Corrupt(str(what_, " ends after ", bytes_.size(), " bytes, within ", size, " bytes that begin at ", at_));
    at_ += size;
    return bytes_.subspan(at_ - size, size);
  }
  template <class T>
  T fixed() {
    static_assert(std::is_trivially_copyable_v<T>);
    T value;
    std::memcpy(&value, raw(sizeof(T)).data(), sizeof(T));
    return value;
  }
  std::uint64_t number() {
    std::uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const auto byte = std::to_integer<std::uint64_t>(raw(1)[0]);
      if (shift == 63 && byte > 1) break;
      value |= (byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
    throw Corrupt(str(what_, " has a number of more than 64 bits before byte ", at_));
  }
  std::int64_t signed_number() {
    const std::uint64_t value = number();
    return static_cast<std::int64_t>(value >> 1 ^ (0 - (value & 1)));
  }
  /// A number of things that take at least `bytes_each` each, so that no length makes anybody allocate more than came.
  std::size_t count(std::size_t bytes_each = 1) {
    const std::uint64_t value = number();
    if (value > left() / bytes_each)
      throw Corrupt(str(what_, " announces ", value, " entries where only ", left(), " bytes follow"));
    return static_cast<std::size_t>(value);
  }
  std::string text() {
    const std::span<const std::byte> bytes = raw(count());
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }
  /// Nothing may follow.
  void end() const {
    if (left() != 0) throw Corrupt(str(what_, " goes on for ", left(), " bytes after its end"));
  }

 private:
  std::span<const std::byte> bytes_;
  std::size_t at_ = 0;
  const char* what_;
};

}  // namespace pagedcore::comm
