// Random weights in the block formats that the CPU keeps.
#pragma once

#include <array>
#include <cstdint>
#include <random>
#include <span>
#include <vector>

#include "pagedcore/tensor.hpp"

namespace matmul_test {

using namespace pagedcore;

inline constexpr std::array kFormats{DType::q4_0, DType::q4_1, DType::q5_0, DType::q5_1, DType::q8_0,
                                     DType::q2_k, DType::q3_k, DType::q4_k, DType::q5_k, DType::q6_k};

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
    default:
      return {0};
  }
}

/// Random codes; scales near 0.01, or any 16 bits at all (infinite, subnormal, NaN).
inline Blocks random_blocks(DType dtype, std::int64_t rows, std::int64_t k, std::mt19937& random, bool wild = false) {
  Blocks b{dtype, rows, k, std::vector<std::uint8_t>(bytes_of(dtype, rows * k))};
  for (std::uint8_t& byte : b.bytes) byte = static_cast<std::uint8_t>(random());
  if (wild) return b;
  for (std::size_t block = 0; block < b.bytes.size(); block += info(dtype).block_bytes)
    for (const std::size_t at : halves_of(dtype)) {
      b.bytes[block + at + 1] = static_cast<std::uint8_t>((random() % 2 << 7) | 0x20 | random() % 4);  // 2^-7 to 2^-6
    }
  return b;
}

}  // namespace matmul_test
