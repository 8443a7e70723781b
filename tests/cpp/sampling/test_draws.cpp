// Statistics of many draws: do they follow the distribution? Seeds are fixed, so the outcome is too.
#include <doctest/doctest.h>

#include <cmath>
#include <random>

#include "pagedcore/sampling.hpp"
#include "reference.hpp"

using namespace pagedcore;

namespace {

constexpr int kDraws = 40000;

/// Pearson's statistic in units of its standard deviation from its mean; tokens of few expected draws are pooled.
double chi_square_score(const std::vector<int>& counts, const std::vector<double>& probabilities) {
  double statistic = 0.0, pooled_expected = 0.0, pooled = 0.0;
  int bins = 0;
  const auto bin = [&](double observed, double expected) {
    statistic += (observed - expected) * (observed - expected) / expected;
    ++bins;
  };
  for (std::size_t t = 0; t < counts.size(); ++t) {
    const double expected = probabilities[t] * kDraws;
    if (expected >= 8.0) {
      bin(counts[t], expected);
    } else {
      pooled += counts[t];
      pooled_expected += expected;
    }
  }
  if (pooled_expected >= 8.0) bin(pooled, pooled_expected);
  const double freedom = std::max(bins - 1, 1);
  return (statistic - freedom) / std::sqrt(2.0 * freedom);
}

}  // namespace

TEST_CASE("draws follow the distribution across positions, samples and seeds") {
  std::mt19937 rng(31);
  std::normal_distribution<float> normal(0.0f, 1.5f);
  std::vector<float> logits(1500);
  for (float& x : logits) x = normal(rng);
  std::vector<TokenId> output(kDraws, 0);

  SamplingParams plain, truncated;
  truncated.temperature = 0.8f;
  truncated.top_k = 200;
  truncated.top_p = 0.9f;
  truncated.min_p = 0.01f;
  for (SamplingParams p : {plain, truncated}) {
    for (const char vary : {'p', 's', 'k'}) {
      CAPTURE(vary);
      std::vector<int> counts(logits.size(), 0);
      const auto probabilities = reference::distribution(logits, {&p, {}, {}, 0});
      p.n = kDraws;
      for (int i = 0; i < kDraws; ++i) {
        const auto count = static_cast<std::size_t>(i);
        p.seed = vary == 'k' ? count : 99;
        const SampleContext context{
            &p, {}, std::span(output).first(vary == 'p' ? count : 0), vary == 's' ? static_cast<std::uint32_t>(i) : 0};
        ++counts[static_cast<std::size_t>(sample(logits, context).token)];
      }
      for (std::size_t t = 0; t < counts.size(); ++t) {
        if (probabilities[t] == 0.0) CHECK(counts[t] == 0);
      }
      const double score = chi_square_score(counts, probabilities);
      CHECK(score < 4.0);
      CHECK(score > -4.0);
    }
  }
}
