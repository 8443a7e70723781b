#include <doctest/doctest.h>

#include <algorithm>

#include "common.hpp"
#include "cpu/matmul/matmul.hpp"
#include "pagedcore/error.hpp"

using namespace matmul_test;
using cpu::Isa;
using cpu::ThreadPool;
using Kind = Epilogue::Kind;

namespace {

struct Case {
  std::int64_t m, n, k;
  Kind kind;
  Activation activation;
  bool bias, bf16_out;
};

/// Compares one matmul with double precision. A sum of k products, each rounded to f32 on its way, errs by at most
/// k * 2^-24 * sum |x w|; the bf16 kernels round no product more than that.
void check_case(ThreadPool& pool, Isa isa, DType dtype, const Case& c, std::mt19937& random) {
  CAPTURE(cpu::name(isa));
  CAPTURE(info(dtype).name);
  CAPTURE(c.m);
  CAPTURE(c.n);
  CAPTURE(c.k);
  CAPTURE(static_cast<int>(c.kind));
  CAPTURE(static_cast<int>(c.activation));
  CAPTURE(c.bf16_out);
  const bool gated = c.kind == Kind::gated;
  Matrix in = Matrix::random(c.m, c.k, c.k + static_cast<std::int64_t>(random() % 5), dtype, random);
  std::vector<Matrix> parts;
  if (gated) {
    for (int i = 0; i < 2; ++i) parts.push_back(Matrix::random(c.n, c.k, c.k, DType::f32, random));
  } else {  // stacked from up to three
    const std::int64_t first = c.n < 3 ? c.n : c.n / 3 + 1, second = (c.n - first) / 2, third = c.n - first - second;
    for (const std::int64_t rows : {first, second, third})
      if (rows > 0) parts.push_back(Matrix::random(rows, c.k, c.k, DType::f32, random));
  }
  std::vector<HostTensor> hosts;
  for (const Matrix& p : parts) hosts.push_back(p.host());
  const PackKind pack_kind = gated ? PackKind::gated : PackKind::stacked;
  const auto weight = cpu::pack_weight(pool, hosts, pack_kind, isa, dtype);
  REQUIRE(weight->n() == c.n);
  REQUIRE(weight->k() == c.k);
  CHECK(weight->bytes() == cpu::packed_weight_bytes(c.n, c.k, pack_kind, isa, dtype));

  const std::int64_t biases = gated ? 2 * c.n : c.n;
  Matrix bias = Matrix::random(1, biases, biases, DType::f32, random);
  const Tensor bias_view = bias.view();
  Matrix out = Matrix::random(c.m, c.n, c.n + static_cast<std::int64_t>(random() % 5),
                              c.bf16_out ? DType::bf16 : DType::f32, random);
  const Matrix before = out;
  Epilogue epilogue{c.kind, c.activation, c.bias ? &bias_view : nullptr};
  cpu::matmul(pool, out.view(), in.view(), *weight, epilogue);

  const auto w = [&](std::size_t part, std::int64_t row, std::int64_t j) {
    if (!gated)
      for (part = 0; row >= parts[part].rows; ++part) row -= parts[part].rows;
    const double x = parts[part].get(row, j);
    return dtype == DType::bf16 ? static_cast<double>(from_bf16(to_bf16(static_cast<float>(x)))) : x;
  };
  bool good = true;
  for (std::int64_t i = 0; i < c.m && good; ++i) {
    for (std::int64_t j = 0; j < c.n && good; ++j) {
      double sum[2] = {0, 0}, size[2] = {0, 0};
      for (std::size_t part = 0; part < (gated ? 2u : 1u); ++part)
        for (std::int64_t l = 0; l < c.k; ++l) {
          const double product = in.get(i, l) * w(part, j, l);
          sum[part] += product;
          size[part] += std::abs(product);
        }
      const double unit = std::ldexp(static_cast<double>(c.k + 4), -24);
      double x = sum[0] + (c.bias ? bias.get(0, j) : 0), expected = x, tolerance = unit * (size[0] + 1);
      if (c.kind == Kind::accumulate) expected = x + before.get(i, j);
      if (c.kind == Kind::activated) expected = activate(c.activation, x);
      if (gated) {
        const double gate = activate(c.activation, x), up = sum[1] + (c.bias ? bias.get(0, c.n + j) : 0);
        expected = gate * up;
        tolerance = tolerance * std::abs(up) + unit * (size[1] + 1) * std::abs(gate) + std::abs(expected) * 2e-6;
      }
      tolerance = 1.2 * tolerance + 1e-6 * std::abs(expected);  // 1.2: the steepest activation
      if (c.bf16_out) tolerance += std::ldexp(std::abs(expected), -8);
      const double got = out.get(i, j);
      good = std::abs(got - expected) <= tolerance;  // false for NaN
      if (!good)
        FAIL_CHECK("at row " << i << ", column " << j << ": " << got << ", expected " << expected << " +- "
                             << tolerance);
    }
    for (std::int64_t j = c.n; j < out.stride && i + 1 < c.m; ++j) good = good && std::isnan(out.get(i, j));
  }
  CHECK(good);
}

}  // namespace

// rule: cpu.inputs-are-read-in-place
TEST_CASE("every instruction set, type and epilogue against double precision, on ragged shapes") {
  std::mt19937 random(7);
  ThreadPool pool(2);
  for_every_kernel([&](Isa isa, DType dtype) {
    for (const std::int64_t n : {1, 5, 16, 31, 33, 70})
      for (const std::int64_t k : {1, 2, 31, 33, 64, 95})
        check_case(pool, isa, dtype,
                   {static_cast<std::int64_t>(1 + random() % 40), n, k, Kind::store, Activation::silu,
                    random() % 2 == 0, false},
                   random);
    for (const std::int64_t m : {1, 2, 3, 5, 6, 7, 11, 12, 13, 15, 16, 17, 24, 31, 32, 33, 47, 48, 63, 65, 100})
      check_case(pool, isa, dtype, {m, 37, 67, Kind::store, Activation::silu, true, false}, random);
    for (const Kind kind : {Kind::store, Kind::accumulate, Kind::gated, Kind::activated})
      for (const Activation activation : {Activation::silu, Activation::gelu, Activation::gelu_tanh, Activation::relu})
        for (const bool bf16_out : {false, true}) {
          if (bf16_out && kind == Kind::accumulate) continue;
          for (const std::int64_t m : {1, 9, 35})
            for (const std::int64_t n : {7, 40})
              check_case(pool, isa, dtype, {m, n, 45, kind, activation, m != 9, bf16_out}, random);
        }
  });
}

TEST_CASE("large enough for several groups of panels and rows") {
  std::mt19937 random(8);
  ThreadPool pool(3);
  for_every_kernel([&](Isa isa, DType dtype) {
    if (isa == Isa::portable) return;  // the same partition as others; slow
    check_case(pool, isa, dtype, {75, 600, 576, Kind::accumulate, Activation::silu, true, false}, random);
    check_case(pool, isa, dtype, {2, 3000, 128, Kind::store, Activation::silu, false, false}, random);
    check_case(pool, isa, dtype, {200, 20, 64, Kind::gated, Activation::silu, false, true}, random);
  });
}

TEST_CASE("activations over the whole range: accurate to a few 1e-7, right at the ends, NaN stays NaN") {
  ThreadPool pool(1);
  const float one = 1.0f;
  HostTensor identity;
  identity.dtype = DType::f32;
  identity.rank = 2;
  identity.shape = {1, 1, 0, 0};
  identity.data = std::as_bytes(std::span(&one, 1));
  std::vector<float> xs;
  for (float x = -20.0f; x <= 20.0f; x += 0.00390625f) xs.push_back(x);
  for (const float x :
       {0.0f, -0.0f, 1e-30f, -1e-30f, 1e-5f, 88.0f, -88.0f, 104.0f, -104.0f, 1e4f, -1e4f, 1e30f, -1e30f})
    xs.push_back(x);
  const auto m = static_cast<std::int64_t>(xs.size());
  for (const std::string& name : cpu_isas()) {
    const Isa isa = cpu::parse_isa(name);
    const auto weight = cpu::pack_weight(pool, {&identity, 1}, PackKind::stacked, isa, DType::f32);
    for (const Activation activation : {Activation::silu, Activation::gelu, Activation::gelu_tanh, Activation::relu}) {
      std::vector<float> out(xs.size(), -1.0f);
      const Tensor in_view{xs.data(), DType::f32, m, 1, 1}, out_view{out.data(), DType::f32, m, 1, 1};
      cpu::matmul(pool, out_view, in_view, *weight, {Kind::activated, activation, nullptr});
      for (std::size_t i = 0; i < xs.size(); ++i) {
        const double x = xs[i], expected = activate(activation, x);
        // In the far tail the exponent, known to half an ulp, is the error: |ln y| * 2^-24 and more where it was
        // squared.
        double relative = 1e-6;
        if (expected != 0) relative += 2e-7 * std::abs(std::log(std::abs(expected / x)));
        const double tolerance = relative * std::abs(expected) + 1e-36;
        CAPTURE(name);
        CAPTURE(static_cast<int>(activation));
        CAPTURE(x);
        CAPTURE(out[i]);
        CAPTURE(expected);
        if (!(std::abs(out[i] - expected) <= tolerance)) FAIL_CHECK("inaccurate");
      }
      float nan = std::numeric_limits<float>::quiet_NaN(), result = 0;
      cpu::matmul(pool, {&result, DType::f32, 1, 1, 1}, {&nan, DType::f32, 1, 1, 1}, *weight,
                  {Kind::activated, activation, nullptr});
      CHECK(std::isnan(result));
    }
  }
}

TEST_CASE("a NaN in one row reaches that row only") {
  std::mt19937 random(9);
  ThreadPool pool(2);
  for_every_kernel([&](Isa isa, DType dtype) {
    for (const std::int64_t k : {33, 64}) {
      Matrix in = Matrix::random(37, k, k, dtype, random);
      in.set(20, k - 1, std::numeric_limits<float>::quiet_NaN());
      const Matrix w = Matrix::random(40, k, k, DType::f32, random);
      const HostTensor host = w.host();
      const auto weight = cpu::pack_weight(pool, {&host, 1}, PackKind::stacked, isa, dtype);
      Matrix out(37, 40, 40, DType::f32);
      cpu::matmul(pool, out.view(), in.view(), *weight, {});
      for (std::int64_t i = 0; i < 37; ++i)
        for (std::int64_t j = 0; j < 40; ++j) CHECK(std::isnan(out.get(i, j)) == (i == 20));
    }
  });
}

TEST_CASE("no rows: nothing happens") {
  ThreadPool pool(2);
  std::mt19937 random(10);
  const Matrix w = Matrix::random(4, 8, 8, DType::f32, random);
  const HostTensor host = w.host();
  for_every_kernel([&](Isa isa, DType dtype) {
    const auto weight = cpu::pack_weight(pool, {&host, 1}, PackKind::stacked, isa, dtype);
    cpu::matmul(pool, {nullptr, DType::f32, 0, 4, 4}, {nullptr, dtype, 0, 8, 8}, *weight, {});
  });
}

// rule: cpu.failure-changes-nothing
TEST_CASE("mismatched operands are refused") {
  ThreadPool pool(1);
  std::mt19937 random(11);
  const Matrix w = Matrix::random(4, 8, 8, DType::f32, random);
  const HostTensor host = w.host(), pair[]{host, host};
  const auto stacked = cpu::pack_weight(pool, {&host, 1}, PackKind::stacked, Isa::portable, DType::f32);
  const auto gated = cpu::pack_weight(pool, pair, PackKind::gated, Isa::portable, DType::f32);
  Matrix in = Matrix::random(3, 8, 8, DType::f32, random), out(3, 4, 4, DType::f32);
  const Tensor x = in.view(), y = out.view();
  const auto refused = [&](Tensor o, Tensor i, const Weight& weight, Epilogue e) {
    CHECK_THROWS_AS(cpu::matmul(pool, o, i, weight, e), InvalidArgument);
  };
  const auto changed = [](Tensor t, auto change) {
    change(t);
    return t;
  };
  refused(y, changed(x, [](Tensor& t) { t.cols = 7; }), *stacked, {});
  refused(y, changed(x, [](Tensor& t) { t.dtype = DType::bf16; }), *stacked, {});
  refused(y, changed(x, [](Tensor& t) { t.stride = 7; }), *stacked, {});
  refused(changed(y, [](Tensor& t) { t.cols = 5; }), x, *stacked, {});
  refused(changed(y, [](Tensor& t) { t.rows = 2; }), x, *stacked, {});
  refused(changed(y, [](Tensor& t) { t.dtype = DType::f16; }), x, *stacked, {});
  refused(changed(y, [](Tensor& t) { t.dtype = DType::bf16; }), x, *stacked,
          {Kind::accumulate, Activation::silu, nullptr});
  refused(y, x, *stacked, {Kind::gated, Activation::silu, nullptr});
  refused(y, x, *gated, {});
  const Tensor bias = y.head(1);
  refused(y, x, *gated, {Kind::gated, Activation::silu, &bias});
  const Tensor narrow{out.data(), DType::f32, 1, 3, 3};
  refused(y, x, *stacked, {Kind::store, Activation::silu, &narrow});
}
