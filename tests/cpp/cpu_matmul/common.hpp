// Random matrices and double-precision references for the packed matmul.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "cpu/isa.hpp"
#include "cpu/matmul/matmul.hpp"
#include "pagedcore/backend.hpp"

namespace pagedcore::cpu {

/// With scratch of its own.
inline void matmul(ThreadPool& pool, const Tensor& out, const Tensor& in, const Weight& weight,
                   const Epilogue& epilogue) {
  Scratch scratch;
  matmul(pool, scratch, out, in, weight, epilogue);
}

}  // namespace pagedcore::cpu

namespace matmul_test {

using namespace pagedcore;

inline std::uint16_t to_bf16(float x) {
  std::uint32_t bits;
  std::memcpy(&bits, &x, 4);
  return static_cast<std::uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}
inline float from_bf16(std::uint16_t x) {
  const std::uint32_t bits = static_cast<std::uint32_t>(x) << 16;
  float f;
  std::memcpy(&f, &bits, 4);
  return f;
}

/// A matrix with room between its rows, kept in f32 and, rounded, in bf16. What lies between rows is NaN.
struct Matrix {
  std::int64_t rows, cols, stride;
  DType dtype;
  std::vector<float> f32;
  std::vector<std::uint16_t> bf16;

  Matrix(std::int64_t r, std::int64_t c, std::int64_t s, DType d)
      : rows(r),
        cols(c),
        stride(s),
        dtype(d),
        f32(size(), std::numeric_limits<float>::quiet_NaN()),
        bf16(size(), 0x7fc0) {}

  static Matrix random(std::int64_t r, std::int64_t c, std::int64_t s, DType d, std::mt19937& engine, float scale = 1) {
    Matrix m(r, c, s, d);
    std::uniform_real_distribution<float> uniform(-scale, scale);
    for (std::int64_t i = 0; i < r; ++i)
      for (std::int64_t j = 0; j < c; ++j) m.set(i, j, uniform(engine));
    return m;
  }

  /// Exactly the elements that may be touched: the last row ends at its last column.
  std::size_t size() const { return rows == 0 ? 0 : static_cast<std::size_t>((rows - 1) * stride + cols); }
  std::size_t at(std::int64_t i, std::int64_t j) const { return static_cast<std::size_t>(i * stride + j); }
  void set(std::int64_t i, std::int64_t j, float x) {
    bf16[at(i, j)] = to_bf16(x);
    f32[at(i, j)] = dtype == DType::bf16 ? from_bf16(to_bf16(x)) : x;
  }
  double get(std::int64_t i, std::int64_t j) const {
    return dtype == DType::bf16 ? from_bf16(bf16[at(i, j)]) : f32[at(i, j)];
  }
  void* data() { return dtype == DType::bf16 ? static_cast<void*>(bf16.data()) : static_cast<void*>(f32.data()); }
  Tensor view() { return {data(), dtype, rows, cols, stride}; }
  /// A contiguous matrix as a host tensor.
  HostTensor host() const {
    HostTensor t;
    t.dtype = dtype;
    t.rank = 2;
    t.shape = {rows, cols, 0, 0};
    t.data = dtype == DType::bf16 ? std::as_bytes(std::span(bf16)) : std::as_bytes(std::span(f32));
    return t;
  }
};

inline double activate(Activation activation, double x) {
  switch (activation) {
    case Activation::silu:
      return x / (1 + std::exp(-x));
    case Activation::gelu:
      return 0.5 * x * std::erfc(-x / std::sqrt(2.0));
    case Activation::gelu_tanh:  // (1 + tanh u) / 2 without its cancellation
      return x / (1 + std::exp(-2 * std::sqrt(2 / 3.14159265358979323846) * (x + 0.044715 * x * x * x)));
    case Activation::relu:
      return x > 0 ? x : 0;
    case Activation::clamped_swiglu:
      break;  // needs up too
  }
  return 0;
}

/// Every instruction set and compute type of this machine.
template <class Body>
void for_every_kernel(const Body& body) {
  for (const std::string& isa : cpu_isas())
    for (const DType dtype : {DType::f32, DType::bf16}) body(cpu::parse_isa(isa), dtype);
}

}  // namespace matmul_test
