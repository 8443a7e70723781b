#include "base/checksum.hpp"

#include <bit>
#include <cstring>

namespace pagedcore {
namespace {

std::uint64_t step(std::uint64_t lane, std::uint64_t word) noexcept {
  constexpr std::uint64_t kPrime = 0x9e3779b97f4a7c15u;
  return std::rotl((lane ^ word) * kPrime, 29);
}

}  // namespace

std::array<std::uint64_t, 4> checksum_lanes(std::span<const std::byte> bytes) noexcept {
  std::array<std::uint64_t, 4> lanes{1, 2, 3, 4};
  std::size_t at = 0;
  for (; at + 32 <= bytes.size(); at += 32) {
    std::array<std::uint64_t, 4> words;
    std::memcpy(words.data(), bytes.data() + at, 32);
    for (std::size_t i = 0; i < 4; ++i) lanes[i] = step(lanes[i], words[i]);
  }
  std::array<std::uint64_t, 4> rest{};
  if (at < bytes.size()) std::memcpy(rest.data(), bytes.data() + at, bytes.size() - at);
  for (std::size_t i = 0; i < 4; ++i) lanes[i] = step(lanes[i], rest[i]);
  return lanes;
}

std::uint64_t checksum(std::span<const std::byte> bytes) noexcept {
  std::uint64_t sum = bytes.size();
  for (const std::uint64_t lane : checksum_lanes(bytes)) sum = step(sum, lane);
  return sum;
}

}  // namespace pagedcore
