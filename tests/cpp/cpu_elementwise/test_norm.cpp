#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "common.hpp"

using namespace test;

namespace {

constexpr std::int64_t kWidths[] = {1, 3, 7, 8, 15, 16, 17, 31, 33, 63, 64, 65, 100, 128, 576, 1000, 4096};

std::vector<double> expected_row(const Matrix& in, std::int64_t row, const Matrix& weight, const Matrix* bias,
                                 const NormParams& p) {
  const std::int64_t n = in.tensor.cols;
  double mean = 0, square = 0;
  if (p.kind == NormKind::layer)
    for (std::int64_t i = 0; i < n; ++i) mean += in.at(row, i) / double(n);
  for (std::int64_t i = 0; i < n; ++i) square += std::pow(in.at(row, i) - mean, 2) / double(n);
  std::vector<double> out;
  for (std::int64_t i = 0; i < n; ++i)
    out.push_back((in.at(row, i) - mean) / std::sqrt(square + p.eps) * (double(weight.at(0, i)) + p.weight_offset) +
                  (bias ? bias->at(0, i) : 0.0));
  return out;
}

}  // namespace

TEST_CASE("norm agrees with float64 on every instruction set, for every tail") {
  ThreadPool pool(2);
  for (const Isa isa : isas()) {
    for (const NormKind kind : {NormKind::rms, NormKind::layer}) {
      for (const std::int64_t n : kWidths) {
        CAPTURE(name(isa));
        CAPTURE(n);
        const std::int64_t rows = 5;
        const bool with_bias = n % 2 == 0;
        const Matrix in(rows, n, 1, 3, 2.0f), weight(1, n, 2), bias(1, n, 3);
        const NormParams p{kind, 1e-3f, n % 3 == 0 ? 1.0f : 0.0f};
        Matrix out(rows, n, 4, 5);
        norm(pool, norm_kernels(isa), out.tensor, in.tensor, weight.tensor, with_bias ? &bias.tensor : nullptr, p);

        std::vector<std::uint16_t> half(static_cast<std::size_t>(rows * (n + 1)), 0xabcd);
        const Tensor narrow{half.data(), DType::bf16, rows, n, n + 1};
        norm(pool, norm_kernels(isa), narrow, in.tensor, weight.tensor, with_bias ? &bias.tensor : nullptr, p);

        for (std::int64_t r = 0; r < rows; ++r) {
          const auto expected = expected_row(in, r, weight, with_bias ? &bias : nullptr, p);
          for (std::int64_t i = 0; i < n; ++i) {
            CHECK(out.at(r, i) == doctest::Approx(expected[static_cast<std::size_t>(i)]).epsilon(3e-6));
            // The bfloat16 output is the f32 one, rounded to nearest even.
            const auto bits = std::bit_cast<std::uint32_t>(out.at(r, i));
            CHECK(half[static_cast<std::size_t>(r * (n + 1) + i)] == (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
          }
          CHECK(half[static_cast<std::size_t>(r * (n + 1) + n)] == 0xabcd);
        }
        CHECK(out.gaps_untouched());
      }
    }
  }
}

// rule: cpu_elementwise.row-stands-alone
TEST_CASE("norm gives a row the same bits alone, in a batch, in place and on several threads") {
  ThreadPool one(1), three(3);
  for (const Isa isa : isas()) {
    for (const std::int64_t n : {63, 576}) {
      const Matrix weight(1, n, 2);
      const NormKernels& kernels = norm_kernels(isa);
      const std::int64_t rows = 200;  // enough for the threads to share
      const Matrix in(rows, n, 1);
      Matrix batch(rows, n, 3), alone(1, n, 4), in_place(rows, n, 1);
      norm(three, kernels, batch.tensor, in.tensor, weight.tensor, nullptr, {});
      norm(one, kernels, in_place.tensor, in_place.tensor, weight.tensor, nullptr, {});
      CHECK(same_bits(batch.storage.data(), in_place.storage.data(), rows * n));
      for (std::int64_t r = 0; r < rows; r += 17) {
        norm(one, kernels, alone.tensor, in.tensor.slice_rows(r, 1), weight.tensor, nullptr, {});
        CHECK(same_bits(alone.storage.data(), batch.storage.data() + r * n, n));
      }
    }
  }
}

TEST_CASE("rounding to bfloat16 keeps infinities and NaNs") {
  ThreadPool pool(1);
  for (const Isa isa : isas()) {
    const std::int64_t n = 37;
    const Matrix in(1, n, 1);
    Matrix weight(1, n, 2);
    weight.storage[0] = weight.storage[35] = std::numeric_limits<float>::quiet_NaN();
    weight.storage[1] = weight.storage[36] = std::numeric_limits<float>::infinity();
    weight.storage[2] = std::bit_cast<float>(0x7f800001u);  // a NaN whose upper half alone would be an infinity
    std::vector<std::uint16_t> out(static_cast<std::size_t>(n));
    norm(pool, norm_kernels(isa), {out.data(), DType::bf16, 1, n, n}, in.tensor, weight.tensor, nullptr, {});
    for (const std::size_t i : {0u, 2u, 35u}) CHECK(std::isnan(bf16_value(out[i])));
    for (const std::size_t i : {1u, 36u}) CHECK(std::isinf(bf16_value(out[i])));
    CHECK(std::isfinite(bf16_value(out[3])));
  }
}

TEST_CASE("head_norm is norm over each head, in place, and touches no other column") {
  ThreadPool pool(2);
  for (const Isa isa : isas()) {
    for (const std::int32_t head_dim : {8, 20, 64, 128}) {
      const std::int64_t rows = 40, heads = 5;
      const Matrix weight(1, head_dim, 2), before(rows, heads * head_dim, 1);
      Matrix x(rows, heads * head_dim, 1), head(1, head_dim, 3);
      const Tensor middle = x.tensor.slice_cols(head_dim, 3 * head_dim);
      head_norm(pool, norm_kernels(isa), middle, head_dim, weight.tensor, nullptr, {NormKind::rms, 1e-6f, 0.5f});
      for (std::int64_t r = 0; r < rows; ++r) {
        for (std::int64_t h = 0; h < heads; ++h) {
          Tensor source = before.tensor.slice_rows(r, 1).slice_cols(h * head_dim, head_dim);
          if (h >= 1 && h <= 3) {
            norm(pool, norm_kernels(isa), head.tensor, source, weight.tensor, nullptr, {NormKind::rms, 1e-6f, 0.5f});
            source = head.tensor;
          }
          CHECK(same_bits(static_cast<const float*>(source.data), x.storage.data() + r * x.tensor.stride + h * head_dim,
                          head_dim));
        }
      }
    }
  }
}

// rule: cpu_elementwise.mismatch-is-refused
TEST_CASE("norm and head_norm refuse what does not fit") {
  ThreadPool pool(1);
  const NormKernels& k = norm_kernels(Isa::portable);
  Matrix in(3, 8, 1), out(3, 8, 2), weight(1, 8, 3), narrow(1, 7, 4), few(2, 8, 5);
  Tensor wrong = out.tensor;
  CHECK_THROWS_AS(norm(pool, k, few.tensor, in.tensor, weight.tensor, nullptr, {}), InvalidArgument);
  CHECK_THROWS_AS(norm(pool, k, out.tensor, in.tensor, narrow.tensor, nullptr, {}), InvalidArgument);
  CHECK_THROWS_AS(norm(pool, k, out.tensor, in.tensor, weight.tensor, &narrow.tensor, {}), InvalidArgument);
  wrong.dtype = DType::f16;
  CHECK_THROWS_AS(norm(pool, k, wrong, in.tensor, weight.tensor, nullptr, {}), InvalidArgument);
  CHECK_THROWS_AS(norm(pool, k, out.tensor, wrong, weight.tensor, nullptr, {}), InvalidArgument);
  wrong = out.tensor;
  wrong.stride = 7;
  CHECK_THROWS_AS(norm(pool, k, wrong, in.tensor, weight.tensor, nullptr, {}), InvalidArgument);
  Tensor onto = in.tensor;
  onto.dtype = DType::bf16;
  CHECK_THROWS_AS(norm(pool, k, onto, in.tensor, weight.tensor, nullptr, {}), InvalidArgument);
  CHECK_THROWS_AS(head_norm(pool, k, in.tensor, 3, weight.tensor, nullptr, {}), InvalidArgument);
  CHECK_THROWS_AS(head_norm(pool, k, in.tensor, 0, weight.tensor, nullptr, {}), InvalidArgument);
  CHECK_THROWS_AS(head_norm(pool, k, in.tensor, 4, narrow.tensor, nullptr, {}), InvalidArgument);
  CHECK_THROWS_AS(head_norm(pool, k, in.tensor, 4, weight.tensor, &narrow.tensor, {}), InvalidArgument);
}
