// A strict JSON reader for headers whose layout is known: the caller says what it expects next, and anything else is
// Corrupt. Nothing is stored, so that a hostile text costs no more memory than the caller keeps, and nesting is as deep
// as the caller's code.
#pragma once

#include <cstddef>
#include <cstdint>
#include <set>
#include <string>
#include <string_view>

namespace pagedcore::io {

class JsonReader {
 public:
  /// `source` begins every message. Both views must outlive the reader.
  JsonReader(std::string_view text, std::string_view source) noexcept : text_(text), source_(source) {}

  /// Calls member(key) for each member; it must read the member's value. Repeated keys are Corrupt.
  template <class Member>
  void object(Member&& member) {
    std::set<std::string> keys;
    expect('{');
    if (accept('}')) return;
    do {
      const auto added = keys.insert(string());
      if (!added.second) fail("the key '" + *added.first + "' is repeated");
      if (keys.size() > max_items) fail("the object has too many members");
      expect(':');
      member(*added.first);
    } while (accept(','));
    expect('}');
  }

  /// Calls element() for each element; it must read it.
  template <class Element>
  void array(Element&& element) {
    expect('[');
    if (accept(']')) return;
    std::size_t count = 0;
    do {
      if (++count > max_items) fail("the array has too many elements");
      element();
    } while (accept(','));
    expect(']');
  }

  std::string string();
  std::uint64_t unsigned_integer();
  /// Nothing but white space follows.
  void finish();
  [[noreturn]] void fail(std::string_view problem) const;

  static constexpr std::size_t max_items = std::size_t{1} << 18;  // of one object or array

 private:
  void skip_space() noexcept;
  bool accept(char c) noexcept;
  void expect(char c);
  void escape(std::string& out);
  std::uint32_t four_hex_digits();

  std::string_view text_;
  std::string_view source_;
  std::size_t at_ = 0;
};

/// `text` as a JSON string with its quotes. Throws InvalidArgument when it is not UTF-8.
std::string json_quote(std::string_view text);

/// Length of the well-formed UTF-8 sequence at the start of `text` (Unicode 15, table 3-7), 0 when there is none.
std::size_t utf8_sequence(std::string_view text) noexcept;

}  // namespace pagedcore::io
