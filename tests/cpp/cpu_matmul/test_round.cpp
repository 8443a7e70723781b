// Weights that are rounded to blocks when they are packed.
#include <doctest/doctest.h>

#include <algorithm>

#include "common.hpp"
#include "cpu/matmul/layout.hpp"
#include "cpu/matmul/matmul.hpp"

using namespace matmul_test;
using cpu::PanelForms;
using cpu::ThreadPool;

namespace {

PanelForms rounded_to(DType format) {
  PanelForms forms(true);
  forms.rounded = format;
  return forms;
}

/// Rows as they were rounded, in f32.
Matrix rounded(const Matrix& weights, DType format) {
  ThreadPool pool(2);
  const HostTensor host = weights.host();
  const auto packed = cpu::pack_weight(pool, {&host, 1}, {}, cpu::Isa::portable, DType::f32, rounded_to(format));
  CHECK(packed->size().native == packed->bytes());
  Matrix out(weights.rows, weights.cols, weights.cols, DType::f32);
  for (std::int64_t row = 0; row < weights.rows; ++row) cpu::unpack_row(*packed, row, &out.f32[out.at(row, 0)]);
  return out;
}

double squared_error(const Matrix& a, const Matrix& b, std::int64_t row, std::int64_t first) {
  double sum = 0;
  for (std::int64_t i = first; i < first + 32; ++i) sum += std::pow(a.get(row, i) - b.get(row, i), 2);
  return sum;
}

}  // namespace

TEST_CASE("8 bits: no number is off by more than half a code, of the largest / 127") {
  std::mt19937 random(91);
  for (const DType dtype : {DType::f32, DType::bf16})
    for (const float size : {1.0f, 1e-3f, 300.0f}) {
      const Matrix weights = Matrix::random(37, 96, 96, dtype, random, size), out = rounded(weights, DType::q8_0);
      for (std::int64_t row = 0; row < 37; ++row)
        for (std::int64_t first = 0; first < 96; first += 32) {
          double largest = 0, worst = 0;
          for (std::int64_t i = first; i < first + 32; ++i) largest = std::max(largest, std::abs(weights.get(row, i)));
          for (std::int64_t i = first; i < first + 32; ++i)
            worst = std::max(worst, std::abs(weights.get(row, i) - out.get(row, i)));
          // The scale is rounded up in f16; below 2^-14 in steps of 2^-24.
          CHECK(worst <= std::max(largest / 127 * (1 + 0x1p-9), largest / 127 + 0x1p-23) / 2);
          CHECK(worst > 0);
        }
    }
}

TEST_CASE("4 bits: no worse than the range of the numbers in fifteen steps, and better on the whole") {
  std::mt19937 random(92);
  std::normal_distribution<float> normal;
  Matrix weights(41, 64, 64, DType::f32);
  for (std::int64_t row = 0; row < 41; ++row)
    for (std::int64_t i = 0; i < 64; ++i) weights.set(row, i, 0.02f * normal(random) + (row % 2 == 0 ? 0.0f : 1.0f));
  const Matrix out = rounded(weights, DType::q4_1);
  double ours = 0, plain = 0;
  for (std::int64_t row = 0; row < 41; ++row)
    for (std::int64_t first = 0; first < 64; first += 32) {
      double low = 1e9, high = -1e9, error = 0;
      for (std::int64_t i = first; i < first + 32; ++i) {
        low = std::min(low, weights.get(row, i));
        high = std::max(high, weights.get(row, i));
      }
      for (std::int64_t i = first; i < first + 32; ++i) {
        const double code = std::nearbyint((weights.get(row, i) - low) / (high - low) * 15);
        error += std::pow(weights.get(row, i) - (low + code * (high - low) / 15), 2);
      }
      const double found = squared_error(weights, out, row, first);
      CHECK(found <= error * 1.05);  // scale and minimum are numbers of f16
      ours += found;
      plain += error;
    }
  CHECK(ours < 0.93 * plain);
}

TEST_CASE("numbers that are equal, zero, huge or not finite") {
  for (const DType format : {DType::q8_0, DType::q4_1}) {
    Matrix weights(6, 32, 32, DType::f32);
    for (std::int64_t i = 0; i < 32; ++i) {
      weights.set(0, i, 0.0f);
      weights.set(1, i, 0.5f);
      weights.set(2, i, i == 3 ? std::numeric_limits<float>::infinity() : 1.0f);
      weights.set(3, i, i == 31 ? std::numeric_limits<float>::quiet_NaN() : 1.0f);
      weights.set(4, i, i % 2 == 0 ? 1e30f : -1e30f);
      weights.set(5, i, 1e-30f);
    }
    const Matrix out = rounded(weights, format);
    for (std::int64_t i = 0; i < 32; ++i) {
      CHECK(out.get(0, i) == 0);
      CHECK(out.get(1, i) == doctest::Approx(0.5).epsilon(1e-3));
      CHECK(std::isnan(out.get(2, i)));
      CHECK(std::isnan(out.get(3, i)));
      CHECK(std::isfinite(out.get(4, i)));
      CHECK(out.get(5, i) == 0);
    }
  }
}

TEST_CASE("a matrix whose columns are no multiple of 32 stays dense, and a plan knows it") {
  const HostTensor odd{DType::f32, {64, 48}, 2}, even{DType::f16, {64, 64}, 2}, q4{DType::q4_0, {64, 64}, 2};
  const auto size = [](const HostTensor& part) {
    return cpu::packed_weight_size({&part, 1}, {}, cpu::Isa::portable, DType::f32, rounded_to(DType::q8_0));
  };
  CHECK(size(odd).native == 0);
  CHECK(size(even).bytes == bytes_of(DType::q8_0, 64 * 64));
  CHECK(size(even).native == size(even).bytes);
  CHECK(size(q4).bytes == bytes_of(DType::q4_0, 64 * 64));  // keeps its own format
}
