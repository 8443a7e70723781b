// Builds safetensors files, right and wrong, byte by byte.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace pagedcore::test {

/// A file with this header; `length` replaces the true header length.
inline std::vector<std::byte> safetensors_bytes(const std::string& header, const std::string& data,
                                                std::int64_t length = -1) {
  const auto size = static_cast<std::uint64_t>(length < 0 ? static_cast<std::int64_t>(header.size()) : length);
  std::vector<std::byte> bytes;
  for (int i = 0; i < 8; ++i) bytes.push_back(static_cast<std::byte>((size >> (8 * i)) & 0xff));
  for (const char c : header + data) bytes.push_back(static_cast<std::byte>(c));
  return bytes;
}

}  // namespace pagedcore::test
