// Numbers for checks, and matrices of them in the memory of a backend.
#pragma once

#include <cstdint>
#include <memory>
#include <random>
#include <span>
#include <vector>

#include "pagedcore/backend.hpp"

namespace pagedcore::selftest {

/// Unit-normal numbers times `scale`, a power of two, cut to what f32, bf16 and f16 all hold exactly.
std::vector<float> normal_values(std::int64_t count, unsigned seed, float scale = 1.0f);
/// Bytes of such numbers in f32, bf16 or f16.
std::vector<std::byte> encoded(std::span<const float> values, DType dtype);
/// Of any type of checkpoints.
std::vector<float> decoded(std::span<const std::byte> bytes, DType dtype);

/// A matrix of f32, bf16 or f16 whose rows are kGap elements apart.
class Matrix {
 public:
  static constexpr std::int64_t kGap = 8;  // keeps rows at multiples of 16 bytes

  /// Zeros, or `values` row by row.
  Matrix(Backend& backend, DType dtype, std::int64_t rows, std::int64_t cols, std::span<const float> values = {});

  const Tensor& tensor() const noexcept { return tensor_; }
  /// Throws Corrupt when something was written between the rows.
  std::vector<float> values() const;

 private:
  Backend& backend_;
  std::unique_ptr<Buffer> buffer_;
  Tensor tensor_;
};

/// A matrix in host memory that owns its elements.
class HostMatrix {
 public:
  HostMatrix(DType dtype, std::int64_t rows, std::int64_t cols, std::vector<std::byte> data);
  HostMatrix(DType dtype, std::int64_t rows, std::int64_t cols, std::span<const float> values)
      : HostMatrix(dtype, rows, cols, encoded(values, dtype)) {}
  HostTensor tensor() const noexcept;

 private:
  DType dtype_;
  std::int64_t rows_, cols_;
  std::vector<std::byte> data_;
};

}  // namespace pagedcore::selftest
