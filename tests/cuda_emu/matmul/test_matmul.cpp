// Matmul kernels against double, and the promise that a row's bits depend on that row only.
#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <functional>
#include <random>
#include <thread>

#include "matmul_case.hpp"
#include "narrow_types.hpp"

namespace pagedcore::cuda {
namespace {

constexpr WeightFormat kFormats[] = {WeightFormat::native, WeightFormat::int8_row, WeightFormat::int8_group,
                                     WeightFormat::int4_group};

/// Products of 16-bit factors are exact in f32. Where the weights are exact too, what is left is the rounding of f32
/// sums and of a row's scale, far below the tolerance of the type.
double allowed(const MatmulCase& c) {
  const bool exact = c.format == WeightFormat::native || c.format == WeightFormat::int8_row || c.exact_scales;
  return exact && !c.narrow_out ? 1e-4 : tolerance(c.type);
}

void check_against_double(const MatmulCase& c) {
  CAPTURE(c.text());
  const MatmulProblem problem(c);
  const auto rows = problem.run();
  double worst = 0.0;
  for (int row = 0; row < c.m; ++row) {
    const auto reference = problem.reference(row);
    for (std::size_t i = 0; i < reference.size(); ++i) {
      // A gated output is a product of two and may be large: there the tolerance is relative.
      const double error = std::abs(double{rows[static_cast<std::size_t>(row)][i]} - reference[i]) /
                           std::max(1.0, std::abs(reference[i]));
      worst = error <= worst ? worst : error;  // NaN is the worst
    }
  }
  CHECK(worst <= allowed(c));
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

TEST_CASE("tiles that many threads pack are the bytes of one") {
  const Parallel by_threads = [](std::int64_t count, const std::function<void(std::int64_t)>& body) {
    std::vector<std::thread> threads;
    for (std::int64_t t = 0; t < 5; ++t)
      threads.emplace_back([&, t] {
        for (std::int64_t i = count - 1 - t; i >= 0; i -= 5) body(i);
      });
    for (std::thread& thread : threads) thread.join();
  };
  for (const PackKind kind : {PackKind::stacked, PackKind::gated})
    for (const WeightFormat format : {WeightFormat::plain, WeightFormat::native, WeightFormat::int8_row,
                                      WeightFormat::int8_group, WeightFormat::int4_group})
      for (const DType type : {DType::bf16, DType::f16}) {
        CAPTURE(static_cast<int>(format));
        const PackSpec spec{.n = 203, .k = 300, .kind = kind, .format = format, .type = type};
        const auto rows = [](std::int64_t row, std::span<float> values) {
          std::mt19937 random(static_cast<unsigned>(row));
          std::normal_distribution<float> normal;
          for (float& v : values) v = normal(random);
        };
        const auto pack = [&](const Parallel& parallel) {
          std::vector<std::byte> weights(spec.weight_bytes()), scales(spec.scale_bytes());
          pack_matrix(spec, rows, weights, scales, parallel);
          weights.insert(weights.end(), scales.begin(), scales.end());
          return weights;
        };
        CHECK(pack(by_threads) == pack(one_after_the_other));
      }
}

TEST_CASE("shapes that fit no tile, in every format, type and kernel") {
  struct Shape {
    int m, n, k;
  };
  // One row and many; n around a tile; k below, at and above a group, not a multiple of 8, and of several splits.
  for (const Shape s : {Shape{1, 1, 32}, Shape{1, 17, 40}, Shape{3, 16, 20}, Shape{8, 33, 520}, Shape{9, 15, 64},
                        Shape{16, 48, 96}, Shape{17, 5, 1}, Shape{33, 130, 72}, Shape{65, 20, 300}, Shape{70, 16, 7}}) {
    for (const DType type : {DType::bf16, DType::f16}) {
      for (const WeightFormat format : kFormats) {
        MatmulCase c;
        c.m = s.m;
        c.n = s.n;
        c.k = s.k;
        c.type = type;
        c.format = format;
        c.k_groups_per_scale = 1 + (s.n + s.k) % 4;
        c.narrow_out = false;
        c.block_tiles = 1 << (s.n + s.m) % 3;
        check_against_double(c);
      }
    }
  }
}

TEST_CASE("epilogues, biases, output types and rows that are far apart") {
  for (const int m : {5, 20, 70}) {
    int variant = 0;
    for (const Epilogue::Kind finish :
         {Epilogue::Kind::store, Epilogue::Kind::accumulate, Epilogue::Kind::gated, Epilogue::Kind::activated}) {
      for (const Activation activation :
           {Activation::silu, Activation::gelu, Activation::gelu_tanh, Activation::relu}) {
        if (activation != Activation::silu && finish < Epilogue::Kind::gated) continue;
        for (const bool narrow_out : {false, true}) {
          if (narrow_out && finish == Epilogue::Kind::accumulate) continue;
          MatmulCase c;
          c.m = m;
          c.n = variant % 2 == 0 ? 24 : 19;
          c.k = 72;  // where a row ends within a group, NaN follows
          c.finish = finish;
          c.activation = activation;
          c.narrow_out = narrow_out;
          c.bias = variant % 3 != 0;
          c.exact_scales = true;
          c.type = variant % 2 == 0 ? DType::f16 : DType::bf16;
          c.format = kFormats[variant % 4];
          c.in_gap = std::array{0, 8, 3}[static_cast<std::size_t>(variant % 3)];
          c.out_gap = std::array{2, 0, 5}[static_cast<std::size_t>(variant % 3)];
          c.block_tiles = 1 << variant % 3;
          check_against_double(c);
          ++variant;
        }
      }
    }
  }
}

// rule: cuda.row-stands-alone
TEST_CASE("a row's bits depend on neither the number of rows, nor its place, nor the tiles of a block") {
  for (const WeightFormat format : kFormats) {
    MatmulCase c;
    c.m = 129;
    c.n = 40;       // three tiles: with two or four in a block, the last block has fewer
    c.k = 32 * 19;  // splits of unequal length, the last of them empty
    c.format = format;
    c.k_groups_per_scale = 2;  // splits begin within what a scale serves
    c.bias = true;
    CAPTURE(c.text());
    const MatmulProblem problem(c);
    const auto all = problem.run();
    for (const int m : {1, 2, 7, 8, 9, 15, 16, 17, 32, 33, 64, 65, 129}) {
      CAPTURE(m);
      std::vector<int> last_rows;  // in descending order, so every row changes its place
      for (int i = 0; i < m; ++i) last_rows.push_back(c.m - 1 - i);
      for (const int block_tiles : {1, 2, 4}) {
        if (m > kStreamRows && block_tiles > 1) continue;
        CAPTURE(block_tiles);
        const auto some = problem.run(last_rows, block_tiles);
        int different = 0;
        for (int i = 0; i < m; ++i)
          different += !same_bits(some[static_cast<std::size_t>(i)], all[static_cast<std::size_t>(c.m - 1 - i)]);
        CHECK(different == 0);
      }
    }
  }
}

TEST_CASE("a block takes as few tiles as keep its inputs small, and leaves none of the device without work") {
  MatmulArgs args;
  args.n = 1024;  // 64 tiles
  const auto chosen = [&](int m, WeightFormat format, int multiprocessors) {
    args.m = m;
    return choose_block_tiles(args, format, multiprocessors);
  };
  CHECK(chosen(1, WeightFormat::native, 1) == 1);
  CHECK(chosen(2, WeightFormat::native, 1) == 2);
  CHECK(chosen(4, WeightFormat::native, 1) == 4);
  CHECK(chosen(1, WeightFormat::int8_group, 1) == 2);
  CHECK(chosen(1, WeightFormat::int4_group, 1) == 4);
  CHECK(chosen(32, WeightFormat::int4_group, 1) == 4);
  CHECK(chosen(32, WeightFormat::native, 16) == 4);
  CHECK(chosen(32, WeightFormat::native, 17) == 2);
  CHECK(chosen(32, WeightFormat::native, 33) == 1);
  CHECK(chosen(32, WeightFormat::native, 132) == 1);
  args.finish = Epilogue::Kind::gated;  // 128 tiles: a gate and its up are of one
  CHECK(chosen(32, WeightFormat::native, 32) == 4);
}

TEST_CASE("a NaN in one row stays in that row") {
  for (const int m : {6, 40}) {
    MatmulCase c;
    c.m = m;
    c.n = 16;
    c.k = 64;
    MatmulProblem problem(c);
    const auto clean = problem.run();
    problem.poison(3);
    const auto poisoned = problem.run();
    for (int row = 0; row < m; ++row) {
      CAPTURE(row);
      const auto& values = poisoned[static_cast<std::size_t>(row)];
      if (row == 3)
        CHECK(std::ranges::all_of(values, [](float x) { return std::isnan(x); }));
      else
        CHECK(same_bits(values, clean[static_cast<std::size_t>(row)]));
    }
  }
}

}  // namespace
}  // namespace pagedcore::cuda
