#include "base/field_text.hpp"

#include <cctype>
#include <cmath>
#include <cstdint>

namespace pagedcore {

void malformed(std::string_view name, std::string_view text, std::string_view expected) {
  constexpr std::size_t shown = 64;
  throw InvalidArgument(
      str(name, " = '", text.substr(0, shown), text.size() > shown ? "...'" : "'", " is not ", expected));
}

std::uint64_t bytes_from_text(std::string_view name, std::string_view text) {
  const std::size_t number_end = std::min(text.find_first_not_of("0123456789."), text.size());
  const std::string_view number = text.substr(0, number_end);
  std::string unit;
  for (const char c : text.substr(number_end))
    if (c != ' ') unit += static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  if (number.find('.') == std::string_view::npos && (unit.empty() || unit == "B")) {
    std::uint64_t bytes = 0;
    const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), bytes);
    if (error != std::errc{} || end != number.data() + number.size() || bytes >> 63 != 0)
      malformed(name, text, kSizeText);
    return bytes;
  }
  constexpr std::string_view letters = "KMGTPE";
  const std::size_t power = unit.empty() ? std::string_view::npos : letters.find(unit[0]);
  const bool binary = unit.size() == 3 && unit[1] == 'I';
  if (power == std::string_view::npos || unit.back() != 'B' || !(binary || unit.size() == 2))
    malformed(name, text, kSizeText);
  double value = 0.0;
  const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), value);
  value *= std::pow(binary ? 1024.0 : 1000.0, static_cast<double>(power + 1));
  if (error != std::errc{} || end != number.data() + number.size() || !(value < 0x1p63))
    malformed(name, text, kSizeText);
  return static_cast<std::uint64_t>(value);
}

}  // namespace pagedcore
