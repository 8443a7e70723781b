// Routers, against shares computed in double precision by their definition.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "cpu/mixture/mixture.hpp"
#include "pagedcore/error.hpp"

using namespace pagedcore;

namespace {

struct Routes {
  std::vector<std::int32_t> experts;
  std::vector<float> shares;
  std::int64_t rows, chosen, columns;

  Routes(std::int64_t r, std::int64_t c, bool gate)
      : experts(static_cast<std::size_t>(r * c)),
        shares(static_cast<std::size_t>(r * (c + gate))),
        rows(r),
        chosen(c),
        columns(c + gate) {}
  Routing view() {
    return {{experts.data(), DType::i32, rows, chosen, chosen}, {shares.data(), DType::f32, rows, columns, columns}};
  }
};

Routes route(std::vector<float>& logits, std::int64_t rows, std::int64_t chosen, const RouterParams& p,
             int threads = 1) {
  const auto columns = static_cast<std::int64_t>(logits.size()) / rows;
  Routes out(rows, chosen, p.gate);
  cpu::ThreadPool pool(threads);
  cpu::route(pool, out.view(), {logits.data(), DType::f32, rows, columns, columns}, p);
  return out;
}

}  // namespace

TEST_CASE("shares are those of the definition, for every kind of router") {
  std::mt19937 random(3);
  std::normal_distribution<float> normal(0.0f, 2.0f);
  for (const auto& [experts, chosen] : {std::pair{8, 2}, {64, 8}, {60, 4}, {5, 5}, {1, 1}})
    for (const RouterKind kind : {RouterKind::softmax, RouterKind::chosen_softmax})
      for (const bool renormalize : {false, true})
        for (const bool gate : {false, true}) {
          const RouterParams p{kind, renormalize, 2.5f, gate};
          const std::int64_t rows = 37, columns = experts + gate;
          std::vector<float> logits(static_cast<std::size_t>(rows * columns));
          for (float& x : logits) x = normal(random);
          const Routes found = route(logits, rows, chosen, p, 2);
          for (std::int64_t row = 0; row < rows; ++row) {
            const float* of_row = logits.data() + row * columns;
            std::vector<std::int32_t> order(static_cast<std::size_t>(experts));
            std::iota(order.begin(), order.end(), 0);
            std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return of_row[a] > of_row[b]; });
            order.resize(static_cast<std::size_t>(chosen));
            std::sort(order.begin(), order.end());
            double all = 0, taken = 0;
            for (std::int64_t e = 0; e < experts; ++e) all += std::exp(double{of_row[e]});
            for (const std::int32_t e : order) taken += std::exp(double{of_row[e]});
            const double sum = kind == RouterKind::chosen_softmax || renormalize ? taken : all;
            for (std::int64_t slot = 0; slot < chosen; ++slot) {
              const auto i = static_cast<std::size_t>(slot);
              CHECK(found.experts[static_cast<std::size_t>(row * chosen + slot)] == order[i]);
              CHECK(
                  found.shares[static_cast<std::size_t>(row * found.columns + slot)] ==
                  doctest::Approx(2.5 * std::exp(double{of_row[order[i]]}) / sum).epsilon(1e-6));  // f32: 2^-24 a step
            }
            if (gate)
              CHECK(found.shares[static_cast<std::size_t>(row * found.columns + chosen)] ==
                    doctest::Approx(1 / (1 + std::exp(-double{of_row[experts]}))).epsilon(1e-6));
          }
        }
}

TEST_CASE("of equal logits the first experts are chosen") {
  std::vector<float> logits{1, 3, 3, 0, 3, 3, /**/ 0, 0, 0, 0, 0, 0};
  const Routes found = route(logits, 2, 3, {});
  CHECK(found.experts == std::vector<std::int32_t>{1, 2, 4, 0, 1, 2});
}

TEST_CASE("what is no number is chosen last, and shares stay numbers where logits overflow") {
  const float nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();
  std::vector<float> logits{nan, 1, nan, 2, /**/ nan, nan, nan, nan, /**/ inf, 0, inf, 1, /**/ 3e38f, -3e38f, 0, 3e38f};
  for (const RouterKind kind : {RouterKind::softmax, RouterKind::chosen_softmax}) {
    const Routes found = route(logits, 4, 2, {kind});
    CHECK(found.experts == std::vector<std::int32_t>{1, 3, 0, 1, 0, 2, 0, 3});
    for (const float share : found.shares) CHECK((share >= 0.0f && share <= 1.0f));
  }
}

TEST_CASE("routes and logits that do not fit are refused by name") {
  std::vector<float> logits(8);
  CHECK_THROWS_WITH_AS(route(logits, 2, 5, {}), "route: 5 experts a row of 4; at least 1", InvalidArgument);
  CHECK_THROWS_AS(route(logits, 2, 4, {.gate = true}), InvalidArgument);
  cpu::ThreadPool pool(1);
  Routes out(2, 2, false);
  Routing wrong = out.view();
  wrong.experts.dtype = DType::f32;
  CHECK_THROWS_AS(cpu::route(pool, wrong, {logits.data(), DType::f32, 2, 4, 4}, {}), InvalidArgument);
  wrong = out.view();
  wrong.shares.cols = 1;
  CHECK_THROWS_AS(cpu::route(pool, wrong, {logits.data(), DType::f32, 2, 4, 4}, {}), InvalidArgument);
}
