// Floating point of 8 and 16 bits to f32, exact for every value. Without branches, so that loops over them are
// vectorised.
#pragma once

#include <bit>
#include <cstdint>

namespace pagedcore {

inline float bf16_to_f32(std::uint16_t bits) noexcept {
  return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}

/// To nearest, ties to even; a NaN stays one.
inline std::uint16_t f32_to_bf16(float value) noexcept {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16, quiet = (bits >> 16) | 0x40u;
  return static_cast<std::uint16_t>((bits & 0x7fffffffu) > 0x7f800000u ? quiet : rounded);
}

inline float f16_to_f32(std::uint16_t bits) noexcept {
  // Moves exponent (5 bits, bias 15) and mantissa (10 bits) to their places in f32 (bias 127) and adds the difference
  // of the biases to the exponent, once more for infinities and NaNs (31 becomes 255).
  constexpr std::uint32_t one_exponent = 1u << 23;
  constexpr std::uint32_t rebias = (127 - 15) * one_exponent;
  const std::uint32_t magnitude = static_cast<std::uint32_t>(bits & 0x7fff) << 13;
  const std::uint32_t sign = static_cast<std::uint32_t>(bits & 0x8000) << 16;
  const std::uint32_t normal = magnitude + rebias;
  // A subnormal is mantissa * 2^-24: put the mantissa below a leading one of 2^-14 and subtract that one. This stays
  // exact when the thread flushes f32 subnormals to zero, for there are none.
  const std::uint32_t subnormal = std::bit_cast<std::uint32_t>(std::bit_cast<float>(normal + one_exponent) -
                                                               std::bit_cast<float>(rebias + one_exponent));
  const std::uint32_t finite = magnitude < one_exponent ? subnormal : normal;
  const std::uint32_t value = magnitude >= 31 * one_exponent ? normal + rebias : finite;
  return std::bit_cast<float>(sign | value);
}

/// e4m3 as machine learning has it: no infinities, so that all but two bit patterns are finite.
inline float f8_e4m3_to_f32(std::uint8_t bits) noexcept {
  // The same fields in f16 have a bias of 15 for one of 7.
  const float finite = 256.0f * f16_to_f32(static_cast<std::uint16_t>((bits & 0x80) << 8 | (bits & 0x7f) << 7));
  return (bits & 0x7f) == 0x7f ? std::bit_cast<float>(0x7fc00000u) : finite;
}

}  // namespace pagedcore
