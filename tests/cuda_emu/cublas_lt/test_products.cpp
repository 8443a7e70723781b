// Products by (a fake) cuBLASLt against double: shapes, epilogues, strides, pieces of rows.
#include <algorithm>
#include <cmath>

#include "backend/cublas_lt.hpp"
#include "fake.hpp"
#include "matmul_case.hpp"
#include "narrow_types.hpp"
#include "pagedcore/error.hpp"

using cuda_test::FakeScope;

namespace pagedcore::cuda {
namespace {

using Kind = Epilogue::Kind;

const cuda_emu::Hooks kRuntime;
constexpr std::size_t kWorkspace = 1 << 20;

MatmulCase plain(int m, int n, int k, Kind finish = Kind::store) {
  MatmulCase c;
  c.m = m;
  c.n = n;
  c.k = k;
  c.finish = finish;
  c.format = WeightFormat::plain;
  return c;
}

std::vector<std::vector<float>> run(const MatmulCase& c, std::size_t workspace) {
  Device device(0);
  CublasLt lt(device, c.type, workspace);
  return MatmulProblem(c).run_by([&](const MatmulArgs& args) { lt.multiply(args); });
}

void check_against_double(const MatmulCase& c, std::size_t workspace = kWorkspace) {
  CAPTURE(c.text());
  const auto rows = run(c, workspace);
  const MatmulProblem problem(c);
  double worst = 0.0;
  for (int row = 0; row < c.m; ++row) {
    const auto reference = problem.reference(row);
    for (std::size_t i = 0; i < reference.size(); ++i) {
      const double error = std::abs(double{rows[static_cast<std::size_t>(row)][i]} - reference[i]) /
                           std::max(1.0, std::abs(reference[i]));
      worst = error <= worst ? worst : error;  // NaN is the worst
    }
  }
  CHECK(worst <= (c.narrow_out ? tolerance(c.type) : 1e-4));  // as of our own kernels: sums of exact products in f32
}

TEST_CASE("shapes that are multiples of nothing, in both types") {
  const FakeScope fake(FAKE_CUBLAS_LT, &kRuntime);
  std::vector<int> splits;
  for (const auto& [m, n, k] :
       {std::tuple{1, 1, 1}, {1, 17, 40}, {3, 16, 20}, {8, 33, 520}, {9, 15, 64}, {70, 16, 7}}) {
    for (const DType type : {DType::bf16, DType::f16}) {
      MatmulCase c = plain(m, n, k);
      c.type = type;
      check_against_double(c);
      splits.push_back(fake->calls.back().splits);
    }
  }
  CHECK(std::ranges::max(splits) > 1);  // several algorithms took part
  CHECK(std::ranges::min(splits) == 1);
}

TEST_CASE("epilogues, biases, output types and rows that are far apart") {
  const FakeScope fake(FAKE_CUBLAS_LT, &kRuntime);
  int variant = 0;
  for (const Kind finish : {Kind::store, Kind::accumulate, Kind::gated, Kind::activated}) {
    for (const bool bias : {false, true}) {
      for (const bool narrow_out : {false, true}) {
        for (const DType type : {DType::bf16, DType::f16}) {
          if (narrow_out && finish == Kind::accumulate) continue;
          MatmulCase c =
              plain(std::array{5, 20, 33}[static_cast<std::size_t>(variant % 3)], variant % 2 ? 19 : 24, 72, finish);
          c.activation = std::array{Activation::silu, Activation::gelu, Activation::gelu_tanh,
                                    Activation::relu}[static_cast<std::size_t>(variant % 4)];
          c.bias = bias;
          c.narrow_out = narrow_out;
          c.type = type;
          c.in_gap = std::array{0, 8, 3}[static_cast<std::size_t>(variant % 3)];
          c.out_gap = std::array{2, 0, 5}[static_cast<std::size_t>(variant % 3)];
          fake->calls.clear();
          check_against_double(c);
          REQUIRE(fake->calls.size() == 1);
          const fake_lt::Call& call = fake->calls[0];
          const bool direct = !bias && (finish == Kind::store || finish == Kind::accumulate);
          CHECK(call.n == (finish == Kind::gated ? 2 * c.n : c.n));
          CHECK(call.in_stride == c.k + c.in_gap);
          CHECK(call.out_stride == (direct ? c.n + c.out_gap : call.n));
          CHECK(call.narrow_out == (direct && narrow_out));
          CHECK(call.beta == (direct && finish == Kind::accumulate ? 1.0f : 0.0f));
          ++variant;
        }
      }
    }
  }
}

TEST_CASE("rows whose sums do not fit are finished in pieces of nearly one size") {
  const FakeScope fake(FAKE_CUBLAS_LT, &kRuntime);
  constexpr std::size_t kSmall = 8192;  // of which sums have a half: 25 rows of 40
  for (const auto& [m, sizes] : {std::pair{25, std::vector{25}}, {26, {13, 13}}, {70, {23, 23, 24}}}) {
    for (const Kind finish : {Kind::gated, Kind::activated}) {
      MatmulCase c = plain(m, finish == Kind::gated ? 20 : 40, 24, finish);
      c.bias = true;
      c.narrow_out = finish == Kind::gated;
      c.in_gap = 1;
      c.out_gap = 3;
      fake->calls.clear();
      check_against_double(c, kSmall);
      std::vector<int> found;
      for (const auto& call : fake->calls) found.push_back(static_cast<int>(call.m));
      CHECK(found == sizes);
      CHECK(fake->workspace == kSmall / 2);
    }
  }
  fake->calls.clear();
  CHECK_THROWS_WITH_AS(run(plain(2, 1025, 4, Kind::activated), kSmall),
                       doctest::Contains("a row of 1025 sums for the epilogue takes 4100 bytes; with cublas_lt half of "
                                         "workspace is for them, 4096: raise workspace to at least"),
                       OutOfMemory);
  CHECK(fake->calls.empty());
  check_against_double(plain(2, 1025, 4), kSmall);  // needs none
}

TEST_CASE("an algorithm is asked for once for a shape and what its memory is aligned to") {
  const FakeScope fake(FAKE_CUBLAS_LT, &kRuntime);
  Device device(0);
  CublasLt lt(device, DType::bf16, kWorkspace);
  const auto multiply = [&](const MatmulArgs& args) { lt.multiply(args); };
  const MatmulCase c = plain(4, 24, 16);
  MatmulProblem(c).run_by(multiply);
  MatmulProblem(c).run_by(multiply);
  CHECK(fake->heuristics == 1);
  MatmulProblem(c).run_by(multiply, {0, 1, 2});
  CHECK(fake->heuristics == 2);
  MatmulProblem(c).run_by(
      [&](MatmulArgs args) {
        args.in = static_cast<const std::uint16_t*>(args.in) + args.in_stride;
        --args.m;
        lt.multiply(args);
        args.in = static_cast<const std::uint16_t*>(args.in) + 1;  // of another alignment
        --args.m;
        lt.multiply(args);
        lt.multiply(args);
      },
      {0, 1, 2});
  CHECK(fake->heuristics == 4);
  MatmulProblem(c).run_by(
      [&](MatmulArgs args) {
        args.m = 0;
        lt.multiply(args);
      },
      {0});
  CHECK(fake->calls.size() == 6);
}

}  // namespace
}  // namespace pagedcore::cuda
