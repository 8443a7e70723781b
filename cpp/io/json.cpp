#include "io/json.hpp"

#include <limits>

#include "base/text.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore::io {
namespace {

void append_utf8(std::string& out, std::uint32_t code) {
  const auto push = [&out](std::uint32_t byte) { out.push_back(static_cast<char>(byte)); };
  if (code < 0x80) {
    push(code);
  } else if (code < 0x800) {
    push(0xc0 | (code >> 6));
    push(0x80 | (code & 0x3f));
  } else if (code < 0x10000) {
    push(0xe0 | (code >> 12));
    push(0x80 | ((code >> 6) & 0x3f));
    push(0x80 | (code & 0x3f));
  } else {
    push(0xf0 | (code >> 18));
    push(0x80 | ((code >> 12) & 0x3f));
    push(0x80 | ((code >> 6) & 0x3f));
    push(0x80 | (code & 0x3f));
  }
}

}  // namespace

std::size_t utf8_sequence(std::string_view text) noexcept {
  if (text.empty()) return 0;
  const auto byte = [text](std::size_t i) { return static_cast<std::uint8_t>(text[i]); };
  const std::uint8_t lead = byte(0);
  if (lead < 0x80) return 1;
  if (lead < 0xc2 || lead > 0xf4) return 0;
  const std::size_t length = lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
  if (text.size() < length) return 0;
  // The second byte rules out overlong forms, surrogates and code points above U+10FFFF.
  const std::uint8_t low = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
  const std::uint8_t high = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
  if (byte(1) < low || byte(1) > high) return 0;
  for (std::size_t i = 2; i < length; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return 0;
  }
  return length;
}

void JsonReader::fail(std::string_view problem) const {
  throw Corrupt(str(source_, ": ", problem, " (byte ", at_, " of the header)"));
}

void JsonReader::skip_space() noexcept {
  while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\t' || text_[at_] == '\n' || text_[at_] == '\r')) {
    ++at_;
  }
}

bool JsonReader::accept(char c) noexcept {
  skip_space();
  if (at_ >= text_.size() || text_[at_] != c) return false;
  ++at_;
  return true;
}

void JsonReader::expect(char c) {
  if (accept(c)) return;
  if (at_ >= text_.size()) fail(str("ends where '", c, "' is expected"));
  fail(str("'", c, "' is expected"));
}

std::uint64_t JsonReader::unsigned_integer() {
  skip_space();
  const std::size_t start = at_;
  std::uint64_t value = 0;
  for (; at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9'; ++at_) {
    const auto digit = static_cast<std::uint64_t>(text_[at_] - '0');
    if (value > (std::numeric_limits<std::uint64_t>::max() - digit) / 10) fail("the number does not fit 64 bits");
    value = value * 10 + digit;
  }
  if (at_ == start) fail("an unsigned integer is expected");
  if (text_[start] == '0' && at_ - start > 1) fail("a number begins with 0");
  return value;
}

std::string JsonReader::string() {
  expect('"');
  std::string out;
  while (at_ < text_.size()) {
    const char c = text_[at_];
    if (c == '"') {
      ++at_;
      return out;
    }
    if (c == '\\') {
      ++at_;
      escape(out);
      continue;
    }
    if (static_cast<std::uint8_t>(c) < 0x20) fail("a control character in a string");
    const std::size_t length = utf8_sequence(text_.substr(at_));
    if (length == 0) fail("a string is not UTF-8");
    out.append(text_.substr(at_, length));
    at_ += length;
  }
  fail("ends inside a string");
}

void JsonReader::escape(std::string& out) {
  if (at_ >= text_.size()) fail("ends inside a string");
  const char c = text_[at_++];
  switch (c) {
    case '"':
    case '\\':
    case '/':
      out.push_back(c);
      return;
    case 'b':
      out.push_back('\b');
      return;
    case 'f':
      out.push_back('\f');
      return;
    case 'n':
      out.push_back('\n');
      return;
    case 'r':
      out.push_back('\r');
      return;
    case 't':
      out.push_back('\t');
      return;
    case 'u':
      break;
    default:
      fail("an unknown escape in a string");
  }
  std::uint32_t code = four_hex_digits();
  if (code >= 0xd800 && code < 0xe000) {  // a pair of surrogates
    if (code >= 0xdc00 || text_.substr(at_, 2) != "\\u") fail("a lone surrogate in a string");
    at_ += 2;
    const std::uint32_t low = four_hex_digits();
    if (low < 0xdc00 || low >= 0xe000) fail("a lone surrogate in a string");
    code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
  }
  append_utf8(out, code);
}

std::uint32_t JsonReader::four_hex_digits() {
  std::uint32_t code = 0;
  for (int i = 0; i < 4; ++i, ++at_) {
    const char c = at_ < text_.size() ? text_[at_] : '\0';
    int digit = 0;
    if (c >= '0' && c <= '9') {
      digit = c - '0';
    } else if (c >= 'a' && c <= 'f') {
      digit = c - 'a' + 10;
    } else if (c >= 'A' && c <= 'F') {
      digit = c - 'A' + 10;
    } else {
      fail("\\u is not followed by four hexadecimal digits");
    }
    code = code * 16 + static_cast<std::uint32_t>(digit);
  }
  return code;
}

void JsonReader::finish() {
  skip_space();
  if (at_ != text_.size()) fail("more follows after the end");
}

std::string json_quote(std::string_view text) {
  constexpr char hex[] = "0123456789abcdef";
  std::string out = "\"";
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t length = utf8_sequence(text.substr(at));
    if (length == 0) throw InvalidArgument(str("'", text, "' is not UTF-8 (byte ", at, ")"));
    const char c = text[at];
    if (c == '"' || c == '\\') {
      out += {'\\', c};
    } else if (static_cast<std::uint8_t>(c) < 0x20) {
      out += {'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]};
    } else {
      out.append(text.substr(at, length));
    }
    at += length;
  }
  return out += '"';
}

}  // namespace pagedcore::io
