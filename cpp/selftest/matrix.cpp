#include "selftest/matrix.hpp"

#include <bit>
#include <cmath>
#include <cstring>
#include <utility>

#include "pagedcore/error.hpp"

namespace pagedcore::selftest {
namespace {

constexpr float kGapMark = 1.5f;
constexpr float kSmallestNormalF16 = 6.103515625e-5f;  // 2^-14

}  // namespace

std::vector<float> normal_values(std::int64_t count, unsigned seed, float scale) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(static_cast<std::size_t>(count));
  for (float& v : values) {
    v = std::bit_cast<float>(std::bit_cast<std::uint32_t>(normal(random) * scale) & 0xffff0000u);
    if (std::fabs(v) < kSmallestNormalF16) v = 0.0f;
  }
  return values;
}

std::vector<std::byte> encoded(std::span<const float> values, DType dtype) {
  std::vector<std::byte> bytes(bytes_of(dtype, static_cast<std::int64_t>(values.size())));
  if (dtype == DType::f32) {
    std::memcpy(bytes.data(), values.data(), bytes.size());
    return bytes;
  }
  for (std::size_t i = 0; i < values.size(); ++i) {
    const auto bits = std::bit_cast<std::uint32_t>(values[i]);
    const std::uint32_t magnitude = bits & 0x7fffffffu;
    // f16: the exponent's bias is 15 instead of 127; the mantissa has 10 bits, of which ours fill 7.
    const std::uint32_t half = magnitude == 0 ? 0 : (magnitude >> 13) - ((127u - 15u) << 10);
    const auto narrow = static_cast<std::uint16_t>(dtype == DType::bf16 ? bits >> 16 : (bits >> 16 & 0x8000u) | half);
    std::memcpy(bytes.data() + 2 * i, &narrow, sizeof narrow);
  }
  return bytes;
}

std::vector<float> decoded(std::span<const std::byte> bytes, DType dtype) {
  const auto count = static_cast<std::int64_t>(bytes.size() / info(dtype).block_bytes * info(dtype).block_elements);
  std::vector<float> values(static_cast<std::size_t>(count));
  to_f32({dtype, {count}, 1, bytes}, 0, values);
  return values;
}

Matrix::Matrix(Backend& backend, DType dtype, std::int64_t rows, std::int64_t cols, std::span<const float> values)
    : backend_(backend), buffer_(backend.allocate(bytes_of(dtype, rows * (cols + kGap)))) {
  tensor_ = {buffer_->data(), dtype, rows, cols, cols + kGap};
  std::vector<float> all(static_cast<std::size_t>(rows * tensor_.stride), kGapMark);
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t c = 0; c < cols; ++c) {
      all[static_cast<std::size_t>(r * tensor_.stride + c)] =
          values.empty() ? 0.0f : values[static_cast<std::size_t>(r * cols + c)];
    }
  }
  Tensor whole = tensor_;
  whole.cols = whole.stride;
  backend.upload(whole, encoded(all, dtype));
}

std::vector<float> Matrix::values() const {
  Tensor whole = tensor_;
  whole.cols = whole.stride;
  std::vector<std::byte> bytes(bytes_of(tensor_.dtype, tensor_.rows * tensor_.stride));
  backend_.download(bytes, whole);
  const std::vector<float> all = decoded(bytes, tensor_.dtype);
  std::vector<float> result;
  for (std::int64_t r = 0; r < tensor_.rows; ++r) {
    const auto row = all.begin() + r * tensor_.stride;
    result.insert(result.end(), row, row + tensor_.cols);
    for (auto gap = row + tensor_.cols; gap != row + tensor_.stride; ++gap) {
      if (*gap != kGapMark) throw Corrupt("memory between the rows of a matrix was written to");
    }
  }
  return result;
}

HostMatrix::HostMatrix(DType dtype, std::int64_t rows, std::int64_t cols, std::vector<std::byte> data)
    : dtype_(dtype), rows_(rows), cols_(cols), data_(std::move(data)) {}

HostTensor HostMatrix::tensor() const noexcept { return {dtype_, {rows_, cols_}, 2, data_}; }

}  // namespace pagedcore::selftest
