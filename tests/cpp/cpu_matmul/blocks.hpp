// Random weights in the block formats that the CPU keeps.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <random>
#include <span>
#include <vector>

#include "pagedcore/tensor.hpp"

namespace matmul_test {

using namespace pagedcore;

inline constexpr std::array kFormats{DType::q4_0,     DType::q4_1,      DType::q5_0,      DType::q5_1,  DType::q8_0,
                                     DType::q2_k,     DType::q3_k,      DType::q4_k,      DType::q5_k,  DType::q6_k,
                                     DType::int4_g32, DType::int4_g128, DType::int8_g128, DType::mxfp4, DType::f8_g128};
/// Of those, whose codes are integers.
inline constexpr auto kIntegers = std::span(kFormats).first(13);

struct Blocks {
  DType dtype;
  std::int64_t rows, k;
  std::vector<std::uint8_t> bytes;

  HostTensor host() const {
    HostTensor t{dtype, {rows, k}, 2};
    t.data = std::as_bytes(std::span(bytes));
    return t;
  }
};

/// Offsets of a block's numbers in f16.
inline std::vector<std::size_t> halves_of(DType dtype) {
  switch (dtype) {
    case DType::q4_1:
    case DType::q5_1:
    case DType::q4_k:
    case DType::q5_k:
      return {0, 2};
    case DType::q2_k:
      return {80, 82};
    case DType::q3_k:
      return {108};
    case DType::q6_k:
      return {208};
    case DType::int4_g32:
    case DType::int4_g128:
    case DType::int8_g128:
      return {4};  // behind a scale in f32
    case DType::mxfp4:
    case DType::f8_g128:
      return {};
    default:
      return {0};
  }
}

/// Of the groups of quantized checkpoints: scales of either sign in turn; zeros are integers.
inline void set_scales(Blocks& b, float scale) {
  constexpr std::uint16_t kZeros[]{0x0000, 0x4800, 0xc200, 0x4b80};  // 0, 8, -3, 15
  for (std::size_t block = 0, i = 0; block < b.bytes.size(); block += info(b.dtype).block_bytes, scale = -scale, ++i) {
    std::memcpy(b.bytes.data() + block, &scale, sizeof scale);
    if (b.dtype != DType::f8_g128) std::memcpy(b.bytes.data() + block + 4, &kZeros[i % 4], 2);
  }
}

/// Random codes; scales near 0.01, or any 16 bits at all (infinite, subnormal, NaN).
inline Blocks random_blocks(DType dtype, std::int64_t rows, std::int64_t k, std::mt19937& random, bool wild = false) {
  Blocks b{dtype, rows, k, std::vector<std::uint8_t>(bytes_of(dtype, rows * k))};
  for (std::uint8_t& byte : b.bytes) byte = static_cast<std::uint8_t>(random());
  if (wild) return b;
  if (dtype >= DType::int4_g32) {
    set_scales(b, 45.0f / 4096.0f);  // as f16 and bf16 have them
    return b;
  }
  for (std::size_t block = 0; block < b.bytes.size() && dtype == DType::mxfp4; block += info(dtype).block_bytes)
    b.bytes[block] = static_cast<std::uint8_t>(120 + random() % 4);
  for (std::size_t block = 0; block < b.bytes.size(); block += info(dtype).block_bytes)
    for (const std::size_t at : halves_of(dtype)) {
      b.bytes[block + at + 1] = static_cast<std::uint8_t>((random() % 2 << 7) | 0x20 | random() % 4);  // 2^-7 to 2^-6
    }
  return b;
}

}  // namespace matmul_test
