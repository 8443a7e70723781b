// The value of one field as text and back. The text may come from a file, a program or a person: every character of it
// is checked. Cold code only.
#pragma once

#include <array>
#include <charconv>
#include <concepts>
#include <string>
#include <string_view>
#include <system_error>
#include <type_traits>
#include <utility>
#include <vector>

#include "base/text.hpp"
#include "pagedcore/error.hpp"
#include "pagedcore/export.hpp"
#include "pagedcore/fields.hpp"

namespace pagedcore {

template <class T>
concept Number = std::is_arithmetic_v<T> && !std::is_same_v<T, bool>;
template <class T>
concept Named = std::is_enum_v<T> && requires {
  Words<T>::list;
};
/// An enum without words is an id: a number that is not mixed up with others.
template <class T>
concept Id = std::is_enum_v<T> && !Named<T>;

/// The words of an enum, for a message: "fcfs, priority, fair". Of several words for a value only the first.
template <Named E>
std::string all_words() {
  std::string text;
  const Word<E>* before = nullptr;
  for (const Word<E>& word : Words<E>::list) {
    if (before == nullptr || before->value != word.value) text.append(text.empty() ? "" : ", ").append(word.text);
    before = &word;
  }
  return text;
}

inline std::string to_text(const std::string& value) { return value; }
inline std::string to_text(bool value) { return value ? "true" : "false"; }
template <Number T>
std::string to_text(T value) {
  std::array<char, 32> text;  // the shortest digits that read back as the same number
  return {text.data(), std::to_chars(text.data(), text.data() + text.size(), value).ptr};
}
template <Named E>
std::string to_text(E value) {
  for (const Word<E>& word : Words<E>::list)
    if (word.value == value) return word.text;
  return to_text(+static_cast<std::underlying_type_t<E>>(value));
}
template <Id T>
std::string to_text(T value) {
  return to_text(static_cast<std::underlying_type_t<T>>(value));
}
template <class A, class B>
std::string to_text(const std::pair<A, B>& value) {
  return to_text(value.first) + ':' + to_text(value.second);
}
template <class T>
std::string to_text(const std::optional<T>& value) {
  return value ? to_text(*value) : "none";
}
template <class T>
std::string to_text(const std::vector<T>& values) {
  std::string text;
  for (const T& value : values) text.append(text.empty() ? "" : ",").append(to_text(value));
  return text;
}

/// Throws InvalidArgument: `name` = 'text' is not `expected`. Long texts are cut.
[[noreturn]] PAGEDCORE_API void malformed(std::string_view name, std::string_view text, std::string_view expected);
inline constexpr char kSizeText[] = "a size: give bytes, or a text such as 512MB or 1.5GiB, below 8EiB";
/// "1048576", "512MB" (10^6) or "1.5 GiB" (2^30) as a number of bytes; throws InvalidArgument, also from 2^63 on.
PAGEDCORE_API std::uint64_t bytes_from_text(std::string_view name, std::string_view text);

template <class T>
constexpr const char* number_kind() {
  if constexpr (std::is_floating_point_v<T>) return "a number";
  return std::is_signed_v<T> ? "a whole number" : "a whole number from 0 on";
}

inline void from_text(std::string_view, std::string_view text, std::string& out) { out = text; }
inline void from_text(std::string_view name, std::string_view text, bool& out) {
  if (text != "true" && text != "false" && text != "1" && text != "0") malformed(name, text, "true or false");
  out = text == "true" || text == "1";
}
template <Number T>
void from_text(std::string_view name, std::string_view text, T& out) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  if (error == std::errc::result_out_of_range)
    malformed(name, text,
              str("a number from ", to_text(std::numeric_limits<T>::lowest()), " to ",
                  to_text(std::numeric_limits<T>::max())));
  if (error != std::errc{} || end != text.data() + text.size()) malformed(name, text, number_kind<T>());
}
template <Named E>
void from_text(std::string_view name, std::string_view text, E& out) {
  for (const Word<E>& word : Words<E>::list)
    if (text == word.text) return void(out = word.value);
  malformed(name, text, "one of " + all_words<E>());
}
template <Id T>
void from_text(std::string_view name, std::string_view text, T& out) {
  std::underlying_type_t<T> value{};
  from_text(name, text, value);
  out = T{value};
}
template <class A, class B>
void from_text(std::string_view name, std::string_view text, std::pair<A, B>& out) {
  const std::size_t colon = text.find(':');
  if (colon == std::string_view::npos) malformed(name, text, "a pair such as 7:0.5");
  from_text(name, text.substr(0, colon), out.first);
  from_text(name, text.substr(colon + 1), out.second);
}
template <class T>
void from_text(std::string_view name, std::string_view text, std::optional<T>& out) {
  if (text == "none") return out.reset();
  from_text(name, text, out.emplace());
}
template <class T>
void from_text(std::string_view name, std::string_view text, std::vector<T>& out) {
  out.clear();
  if (text == "none") return;
  while (!text.empty()) {
    const std::size_t comma = text.find(',');
    T value{};
    from_text(name, text.substr(0, comma), value);
    out.push_back(std::move(value));
    if (comma == std::string_view::npos) return;
    text.remove_prefix(comma + 1);
    if (text.empty()) malformed(name, ",", "a list: it ends with a comma");
  }
}

}  // namespace pagedcore
