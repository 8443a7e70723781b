// Random matrices in host memory for the elementwise tests.
#pragma once

#include <bit>
#include <cstring>
#include <random>
#include <span>
#include <vector>

#include "cpu/elementwise/elementwise.hpp"
#include "cpu/matmul/matmul.hpp"
#include "pagedcore/error.hpp"

namespace test {

using namespace pagedcore;
using namespace pagedcore::cpu;

inline std::vector<Isa> isas() {
  std::vector<Isa> list;
  for (const std::string& name : cpu_isas()) list.push_back(parse_isa(name));
  return list;
}

inline float bf16_value(std::uint16_t bits) { return std::bit_cast<float>(std::uint32_t{bits} << 16); }

inline std::vector<float> random_values(std::size_t count, std::uint32_t seed, float shift = 0.0f) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(shift);
  std::vector<float> values(count);
  for (float& v : values) v = normal(random);
  return values;
}

/// An f32 matrix with `gap` unused columns, filled with a marker that nothing may overwrite.
struct Matrix {
  Matrix(std::int64_t rows, std::int64_t cols, std::uint32_t seed, std::int64_t gap = 0, float shift = 0.0f)
      : storage(random_values(static_cast<std::size_t>(rows * (cols + gap)), seed, shift)),
        tensor{storage.data(), DType::f32, rows, cols, cols + gap} {
    for (std::int64_t r = 0; r < rows; ++r)
      for (std::int64_t c = cols; c < cols + gap; ++c) storage[static_cast<std::size_t>(r * (cols + gap) + c)] = 12345;
  }
  Matrix(const Matrix&) = delete;
  Matrix& operator=(const Matrix&) = delete;

  float at(std::int64_t r, std::int64_t c) const { return storage[static_cast<std::size_t>(r * tensor.stride + c)]; }
  bool gaps_untouched() const {
    for (std::int64_t r = 0; r < tensor.rows; ++r)
      for (std::int64_t c = tensor.cols; c < tensor.stride; ++c)
        if (at(r, c) != 12345) return false;
    return true;
  }

  std::vector<float> storage;
  Tensor tensor;
};

inline bool same_bits(const float* a, const float* b, std::int64_t n) {
  return std::memcmp(a, b, static_cast<std::size_t>(n) * sizeof(float)) == 0;
}

}  // namespace test
