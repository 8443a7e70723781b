// Weights with several leaves of k: values against double, and the order of the sums to the last bit.
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>

#include "backend/sum_tree.hpp"
#include "matmul_case.hpp"

namespace pagedcore::cuda {
namespace {

using Ends = std::vector<std::int64_t>;

Ends even(std::int64_t leaves, std::int64_t each) {
  Ends ends;
  for (std::int64_t i = 1; i <= leaves; ++i) ends.push_back(i * each);
  return ends;
}

MatmulCase case_of(int m, const Ends& ends) {
  MatmulCase c;
  c.m = m;
  c.n = 40;
  c.k = static_cast<std::int32_t>(ends.back());
  c.leaf_ends = ends;
  return c;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

/// Heads of several sizes, whole groups and not; pieces of k; fewer leaves than warps, and more than registers hold.
const Ends kForms[] = {even(9, 64),  even(3, 40),  even(5, 100), {31, 64, 97},
                       even(16, 32), even(14, 80), even(41, 7),  {320, 352, 360}};

}  // namespace

TEST_CASE("the tree over sums of leaves, then bias, then residual, to the last bit") {
  for (const Ends& ends : kForms)
    for (const int m : {1, 5, 20, 70}) {
      MatmulCase c = case_of(m, ends);
      c.finish = Epilogue::Kind::accumulate;
      c.bias = true;
      CAPTURE(c.text());
      const MatmulProblem problem(c);
      // With inputs of zero elsewhere the root is the sum of one leaf.
      std::vector<std::vector<std::vector<float>>> sums;  // [leaf][row][output]
      std::vector<TreeNode> nodes;
      for (std::size_t leaf = 0; leaf < ends.size(); ++leaf) {
        sums.push_back(problem.columns(leaf == 0 ? 0 : ends[leaf - 1], ends[leaf]).run());
        nodes.push_back({0, static_cast<std::int64_t>(leaf)});
      }
      const auto rows = problem.run();
      int different = 0;
      for (int row = 0; row < m; ++row) {
        std::vector<std::span<const float>> values;
        for (const auto& leaf : sums) values.push_back(leaf[static_cast<std::size_t>(row)]);
        std::vector<float> expected(static_cast<std::size_t>(c.n));
        combine(nodes, values, static_cast<std::int64_t>(ends.size()), expected);
        for (int i = 0; i < c.n; ++i) {
          float& x = expected[static_cast<std::size_t>(i)];
          x += problem.bias(i);
          x += problem.before(row, i);
        }
        different += !same_bits(rows[static_cast<std::size_t>(row)], expected);
      }
      CHECK(different == 0);
    }
}

TEST_CASE("leaves against double, in every epilogue, with rows that are far apart") {
  int variant = 0;
  for (const Ends& ends : kForms)
    for (const int m : {3, 17, 66})
      for (const Epilogue::Kind finish : {Epilogue::Kind::store, Epilogue::Kind::gated, Epilogue::Kind::activated}) {
        ++variant;
        MatmulCase c = case_of(m, ends);
        c.n = variant % 2 == 0 ? 24 : 19;
        c.finish = finish;
        c.bias = variant % 3 != 0;
        c.type = variant % 2 == 0 ? DType::f16 : DType::bf16;
        c.in_gap = std::array{0, 8, 3}[static_cast<std::size_t>(variant % 3)];
        CAPTURE(c.text());
        const MatmulProblem problem(c);
        const auto rows = problem.run();
        double worst = 0.0;
        for (int row = 0; row < m; ++row) {
          const auto reference = problem.reference(row);
          for (std::size_t i = 0; i < reference.size(); ++i) {
            const double error = std::abs(double{rows[static_cast<std::size_t>(row)][i]} - reference[i]) /
                                 std::max(1.0, std::abs(reference[i]));
            worst = error <= worst ? worst : error;  // NaN is the worst
          }
        }
        CHECK(worst <= 1e-4);  // products are exact in f32: what is left is the rounding of sums
      }
}

// rule: cuda.row-stands-alone
TEST_CASE("with leaves too a row's bits depend on neither the number of rows nor its place") {
  for (const Ends& ends : {kForms[0], kForms[2], kForms[6], even(128, 8)}) {
    MatmulCase c = case_of(129, ends);
    c.bias = true;
    CAPTURE(c.text());
    const MatmulProblem problem(c);
    const auto all = problem.run();
    for (const int m : {1, 7, 8, 9, 32, 33, 64, 65}) {
      std::vector<int> last_rows;  // in descending order, so every row changes its place
      for (int i = 0; i < m; ++i) last_rows.push_back(c.m - 1 - i);
      const auto some = problem.run(last_rows);
      int different = 0;
      for (int i = 0; i < m; ++i)
        different += !same_bits(some[static_cast<std::size_t>(i)], all[static_cast<std::size_t>(c.m - 1 - i)]);
      CAPTURE(m);
      CHECK(different == 0);
    }
  }
}

TEST_CASE("several leaves in another format, and too many, are refused before anything is enqueued") {
  MatmulArgs args;
  args.m = 1;
  args.leaves.count = 2;
  CHECK(launch_matmul(args, DType::bf16, WeightFormat::int8_row, nullptr) == cudaErrorInvalidValue);
  args.leaves.count = kMostLeavesOfKernel + 1;
  CHECK(launch_matmul(args, DType::bf16, WeightFormat::native, nullptr) == cudaErrorInvalidValue);
  args.m = 0;
  CHECK(launch_matmul_leaves(args, DType::bf16, nullptr) == cudaSuccess);
}

}  // namespace pagedcore::cuda
