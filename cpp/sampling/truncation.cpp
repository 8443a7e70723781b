#include "sampling/truncation.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "sampling/row_kernels.hpp"
#include "sampling/top_k.hpp"

namespace pagedcore::sampling {
namespace {

constexpr double kDeepest = 88.0;  // exp_row gives 0 further than this below the maximum

double mass(const Candidates& c) { return std::accumulate(c.weights.begin(), c.weights.end(), 0.0); }

void weigh(std::span<const float> row, float max, float scale, Candidates& c) {
  c.logits.resize(c.tokens.size());
  c.weights.resize(c.tokens.size());
  for (std::size_t i = 0; i < c.tokens.size(); ++i) c.logits[i] = row[static_cast<std::size_t>(c.tokens[i])];
  exp_row(c.logits, max, scale, c.weights);
}

/// Collects every token whose weight is at least exp(-depth), and perhaps a few below.
void collect(std::span<const float> row, float max, float scale, double depth, Candidates& c) {
  const double slack = 1e-6 * std::abs(double{max}) + 1e-3 / double{scale};  // covers the rounding of scaled logits
  const double floor = double{max} - depth / double{scale} - slack;
  c.tokens.clear();
  collect_at_least(row, static_cast<float>(std::max(floor, double{std::numeric_limits<float>::lowest()})), c.tokens);
  weigh(row, max, scale, c);
}

template <class Keep>
void keep_if(Candidates& c, const Keep& keep) {
  std::size_t kept = 0;
  for (std::size_t i = 0; i < c.tokens.size(); ++i) {
    if (!keep(i)) continue;
    c.tokens[kept] = c.tokens[i];
    c.logits[kept] = c.logits[i];
    c.weights[kept] = c.weights[i];
    ++kept;
  }
  c.tokens.resize(kept);
  c.logits.resize(kept);
  c.weights.resize(kept);
}

/// Keeps the shortest prefix, in order of rank, whose mass reaches `target`: quickselect by mass, O(candidates).
void keep_mass(Candidates& c, double target, std::vector<std::uint32_t>& order) {
  order.resize(c.tokens.size());
  std::iota(order.begin(), order.end(), 0u);
  const auto before = [&](std::uint32_t a, std::uint32_t b) {  // ascending indices are ascending tokens
    return c.logits[a] > c.logits[b] || (c.logits[a] == c.logits[b] && a < b);
  };
  const auto at = [&](std::size_t i) { return order.begin() + static_cast<std::ptrdiff_t>(i); };

  // Everything before `low` ranks above [low, high) and is kept with mass `above`; the cut lies in [low, high).
  std::size_t low = 0, high = order.size();
  double above = 0.0;
  while (high - low > 1) {
    const std::size_t middle = low + (high - low) / 2;
    std::nth_element(at(low), at(middle), at(high), before);
    double upper = 0.0;
    for (std::size_t i = low; i < middle; ++i) upper += double{c.weights[order[i]]};
    if (above + upper >= target) {
      high = middle;
    } else {
      above += upper;
      low = middle;
    }
  }
  if (low >= order.size()) return;
  const std::uint32_t last = order[low];
  const auto logit = c.logits[last];
  keep_if(c, [&](std::size_t i) { return c.logits[i] > logit || (c.logits[i] == logit && i <= last); });
}

}  // namespace

bool truncates(const SamplingParams& p, std::size_t vocab_size) noexcept {
  return p.min_p > 0.0f || p.top_p < 1.0f || (p.top_k > 0 && static_cast<std::size_t>(p.top_k) < vocab_size);
}

void truncate(std::span<const float> row, float max, float scale, const SamplingParams& p, Scratch& scratch) {
  Candidates& c = scratch.candidates;
  const double top_p = double{p.top_p};
  if (p.top_k > 0 && static_cast<std::size_t>(p.top_k) < row.size()) {
    top_k(row, static_cast<std::size_t>(p.top_k), c.tokens, scratch);
    weigh(row, max, scale, c);
  } else if (p.min_p > 0.0f) {
    collect(row, max, scale, -std::log(double{p.min_p}), c);
  } else {
    // Top-p alone: its tokens are usually a handful near the maximum, so look there first.
    const double target = top_p * exp_sum(row, max, scale);
    double depth = 4.0;
    collect(row, max, scale, depth, c);
    while (depth < kDeepest && mass(c) < target) collect(row, max, scale, depth *= 2.0, c);
    keep_mass(c, target, scratch.order);
    return;
  }
  // Min-p and top-k both keep a prefix in order of rank, so their order does not matter.
  if (p.min_p > 0.0f) keep_if(c, [&](std::size_t i) { return c.weights[i] >= p.min_p; });
  if (top_p < 1.0) keep_mass(c, top_p * mass(c), scratch.order);
}

}  // namespace pagedcore::sampling
