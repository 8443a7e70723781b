// Candidates at the very boundaries of what is cut off.
#include <doctest/doctest.h>

#include <random>
#include <vector>

#include "sampling/row_kernels.hpp"
#include "sampling/truncation.hpp"

using namespace pagedcore;
using namespace pagedcore::sampling;

namespace {

std::vector<TokenId> kept(const std::vector<float>& row, const SamplingParams& p) {
  Scratch scratch;
  truncate(row, row_max(row), logit_scale(p), p, scratch);
  return scratch.candidates.tokens;
}

}  // namespace

// rule: sampling.one-rank-order
TEST_CASE("top_p stops once its mass is reached, and takes the first of equal tokens") {
  SamplingParams p;
  p.top_p = 0.5f;
  CHECK(kept({1.0f, 1.0f}, p) == std::vector<TokenId>{0});
  CHECK(kept({1.0f, 1.0f, 1.0f, 1.0f}, p) == std::vector<TokenId>{0, 1});
  p.top_k = 4;
  CHECK(kept({-1.0f, 1.0f, 1.0f, 1.0f, 1.0f}, p) == std::vector<TokenId>{1, 2});
}

TEST_CASE("min_p keeps a token of exactly that weight, however its logit was rounded") {
  std::mt19937 random(51);
  std::uniform_real_distribution<float> below(0.0f, 4.0f), temperature(0.2f, 2.0f), top(-30.0f, 30.0f);
  for (int trial = 0; trial < 2000; ++trial) {
    SamplingParams p;
    p.temperature = temperature(random);
    const float max = top(random);
    const std::vector<float> row{max, max - below(random)};
    std::vector<float> weights(2);
    exp_row(row, max, logit_scale(p), weights);
    p.min_p = weights[1];
    CAPTURE(trial);
    CHECK(kept(row, p).size() == 2);
  }
}
