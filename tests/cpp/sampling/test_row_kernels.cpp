#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "sampling/row_kernels.hpp"
#include "sampling/top_k.hpp"

using namespace pagedcore;
using namespace pagedcore::sampling;

namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

std::vector<float> random_row(std::size_t size, unsigned seed, bool coarse = false) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal(0.0f, 6.0f);
  std::vector<float> row(size);
  for (float& x : row) x = coarse ? std::round(normal(rng)) : normal(rng);  // coarse: many ties
  return row;
}

/// Runs `body` at every level of instruction set that this CPU has.
template <class Body>
void at_every_level(const Body& body) {
  const int best = limit_row_isa(2);
  for (int level = 0; level <= best; ++level) {
    CAPTURE(level);
    REQUIRE(limit_row_isa(level) == level);
    body();
  }
  limit_row_isa(2);
}

const std::size_t kSizes[] = {1,  2,   15,  16,  17,  31,   32,   33,   63,   64,
                              65, 127, 511, 512, 513, 1023, 1024, 1025, 5000, 49152};

}  // namespace

TEST_CASE("maximum, search and counts agree with the standard algorithms") {
  at_every_level([] {
    for (const std::size_t size : kSizes) {
      const auto row = random_row(size, static_cast<unsigned>(size), true);
      const float max = *std::max_element(row.begin(), row.end());
      CHECK(row_max(row) == max);
      for (const float x : {max, row[size / 2], row[size - 1], 1000.0f}) {
        CHECK(find_first(row, x) == static_cast<std::size_t>(std::find(row.begin(), row.end(), x) - row.begin()));
        CHECK(count_equal(row, x) == static_cast<std::size_t>(std::count(row.begin(), row.end(), x)));
        CHECK(count_greater(row, x) ==
              static_cast<std::size_t>(std::count_if(row.begin(), row.end(), [&](float y) { return y > x; })));
        std::vector<TokenId> expected, got;
        for (std::size_t i = 0; i < size; ++i) {
          if (row[i] >= x) expected.push_back(static_cast<TokenId>(i));
        }
        collect_at_least(row, x, got);
        CHECK(got == expected);
      }
    }
    CHECK(row_max({}) == -kInf);
  });
}

TEST_CASE("a NaN anywhere makes the maximum NaN, infinities do not") {
  at_every_level([] {
    for (const std::size_t size : {1, 16, 33, 100}) {
      for (std::size_t at = 0; at < size; ++at) {
        auto row = random_row(size, 1);
        row[at] = std::numeric_limits<float>::quiet_NaN();
        CHECK(std::isnan(row_max(row)));
        row[at] = kInf;
        CHECK(row_max(row) == kInf);
        row[at] = -kInf;
        CHECK_FALSE(std::isnan(row_max(row)));
      }
    }
    const std::vector<float> nothing(50, -kInf);
    CHECK(row_max(nothing) == -kInf);
  });
}

TEST_CASE("exp is accurate to 1e-7 relative over its whole range") {
  std::vector<float> row, out;
  for (int i = 0; i <= 400000; ++i) row.push_back(-87.3f * static_cast<float>(i) / 400000.0f);
  out.resize(row.size());
  exp_row(row, 0.0f, 1.0f, out);
  double worst = 0.0;
  for (std::size_t i = 0; i < row.size(); ++i) {
    worst = std::max(worst, std::abs(double{out[i]} / std::exp(double{row[i]}) - 1.0));
  }
  CHECK(worst < 1.2e-7);
  CHECK(out[0] == 1.0f);

  const std::vector<float> low = {-88.0f, -1e30f, -kInf, 0.0f};
  out.assign(4, 7.0f);
  exp_row(low, 0.0f, 1.0f, out);
  CHECK(out == std::vector<float>{0.0f, 0.0f, 0.0f, 1.0f});
  exp_row(low, 0.0f, std::numeric_limits<float>::max(), out);
  CHECK(out == std::vector<float>{0.0f, 0.0f, 0.0f, 1.0f});
}

TEST_CASE("sums of exponentials agree with double precision") {
  for (const std::size_t size : kSizes) {
    const auto row = random_row(size, 3);
    const float max = row_max(row);
    std::vector<double> sums(sum_blocks(size));
    exp_block_sums(row, max, 0.7f, sums);
    double total = 0.0;
    for (std::size_t b = 0; b < sums.size(); ++b) {
      double expected = 0.0;
      for (std::size_t i = b * kSumBlock; i < std::min(size, (b + 1) * kSumBlock); ++i) {
        expected += std::exp(double{(row[i] - max) * 0.7f});
      }
      CHECK(sums[b] == doctest::Approx(expected).epsilon(1e-6));
      total += expected;
    }
    CHECK(exp_sum(row, max, 0.7f) == doctest::Approx(total).epsilon(1e-6));
    CHECK(exp_sum(row, max, 0.7f) == std::accumulate(sums.begin(), sums.end(), 0.0));  // in double: to the last bit
  }
}

TEST_CASE("maxima of groups cover the row") {
  at_every_level([] {
    for (const std::size_t size : kSizes) {
      for (std::size_t at = size - std::min<std::size_t>(size, 40); at < size; ++at) {
        std::vector<float> row(size, -1.0f), maxima(group_count(size));
        row[at] = 1.0f;
        group_max(row, maxima);
        CHECK(std::ranges::count(maxima, 1.0f) == 1);
      }
    }
  });
}

// rule: sampling.same-key-same-bits
TEST_CASE("every instruction set gives the same bits") {
  const auto row = random_row(5003, 4);
  const float max = row_max(row);
  std::vector<float> first_exp;
  std::vector<double> first_sums;
  at_every_level([&] {
    std::vector<float> exps(row.size());
    std::vector<double> sums(sum_blocks(row.size()));
    exp_row(row, max, 1.3f, exps);
    exp_block_sums(row, max, 1.3f, sums);
    if (first_exp.empty()) first_exp = exps, first_sums = sums;
    CHECK(exps == first_exp);
    CHECK(sums == first_sums);
  });
}

// rule: sampling.one-rank-order
TEST_CASE("top_k selects what a full sort selects, ties by token id") {
  at_every_level([] {
    for (const std::size_t size : kSizes) {
      for (const bool coarse : {false, true}) {
        const auto row = random_row(size, 5, coarse);
        std::vector<TokenId> order(size), got;
        Scratch scratch;
        for (std::size_t i = 0; i < size; ++i) order[i] = static_cast<TokenId>(i);
        std::stable_sort(order.begin(), order.end(), [&](TokenId a, TokenId b) {
          return row[static_cast<std::size_t>(a)] > row[static_cast<std::size_t>(b)];
        });
        for (const std::size_t k : {0, 1, 2, 7, 50, 1000, 4000, 60000}) {
          auto expected = std::vector<TokenId>(order.begin(), order.begin() + static_cast<long>(std::min(k, size)));
          std::sort(expected.begin(), expected.end());
          top_k(row, k, got, scratch);
          CHECK(got == expected);
        }
      }
    }
  });
}

TEST_CASE("top_k leaves out impossible tokens") {
  std::vector<float> row(100, -kInf);
  row[3] = 1.0f;
  row[77] = -5.0f;
  std::vector<TokenId> got;
  Scratch scratch;
  top_k(row, 10, got, scratch);
  CHECK(got == std::vector<TokenId>{3, 77});
}
