// The sampler written again in double precision from its definition, with full sorts: what the tests compare against.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>
#include <vector>

#include "pagedcore/sampling.hpp"

namespace reference {

using pagedcore::SampleContext;
using pagedcore::SamplingParams;
using pagedcore::TokenId;

constexpr double kInf = std::numeric_limits<double>::infinity();

inline std::vector<double> processed(const std::vector<float>& logits, const SampleContext& c) {
  const SamplingParams& p = *c.params;
  std::vector<double> x(logits.begin(), logits.end());
  std::set<TokenId> seen(c.prompt.begin(), c.prompt.end());
  seen.insert(c.output.begin(), c.output.end());
  for (const TokenId t : seen) {
    double& v = x[static_cast<std::size_t>(t)];
    v = v > 0 ? v / double{p.repetition_penalty} : v * double{p.repetition_penalty};
  }
  for (std::size_t t = 0; t < x.size(); ++t) {
    const auto count = std::count(c.output.begin(), c.output.end(), static_cast<TokenId>(t));
    x[t] -= double{p.frequency_penalty} * static_cast<double>(count);
    if (count > 0) x[t] -= double{p.presence_penalty};
  }
  for (const auto& [t, bias] : p.logit_bias) x[static_cast<std::size_t>(t)] += double{bias};
  for (std::size_t t = 0; t < x.size(); ++t) {
    const auto in = [&](const std::vector<TokenId>& list) {
      return std::find(list.begin(), list.end(), static_cast<TokenId>(t)) != list.end();
    };
    if (!p.allowed_token_ids.empty() && !in(p.allowed_token_ids)) x[t] = -kInf;
    if (in(p.banned_tokens)) x[t] = -kInf;
    if (c.output.size() < p.min_tokens && in(p.stop_token_ids)) x[t] = -kInf;
  }
  return x;
}

/// Probability of every token after all of it; temperature 0 is a distribution on one token.
inline std::vector<double> distribution(const std::vector<float>& logits, const SampleContext& c) {
  const SamplingParams& p = *c.params;
  std::vector<double> x = processed(logits, c);
  std::vector<std::size_t> order(x.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return x[a] > x[b]; });
  const double max = x[order[0]];
  std::vector<double> w(x.size(), 0.0);
  if (p.temperature == 0.0f) {
    w[order[0]] = 1.0;
    return w;
  }
  for (std::size_t i = 0; i < x.size(); ++i) w[i] = std::exp((x[i] - max) / double{p.temperature});
  const auto cut = [&](std::size_t keep) {
    for (std::size_t i = keep; i < order.size(); ++i) w[order[i]] = 0.0;
  };
  std::size_t keep = 0;
  while (keep < order.size() && w[order[keep]] >= double{p.min_p}) ++keep;
  cut(keep);
  if (p.top_k > 0) cut(std::min(static_cast<std::size_t>(p.top_k), order.size()));
  double total = 0.0;
  for (const double v : w) total += v;
  if (p.top_p < 1.0f) {
    double sum = 0.0;
    keep = 0;
    while (keep < order.size() && sum < double{p.top_p} * total) sum += w[order[keep++]];
    cut(keep);
  }
  total = 0.0;
  for (const double v : w) total += v;
  for (double& v : w) v /= total;
  return w;
}

/// Inverts the cumulative distribution in token order. `margin` is how far u is from the nearest boundary between
/// tokens: where it is tiny, single precision may fall on the other side.
struct Draw {
  TokenId token = -1;
  double margin = 0.0;
};
inline Draw draw(const std::vector<double>& probabilities, double u) {
  Draw result;
  double sum = 0.0;
  for (std::size_t t = 0; t < probabilities.size(); ++t) {
    if (probabilities[t] <= 0.0) continue;
    if (sum <= u) result = {static_cast<TokenId>(t), std::min(u - sum, sum + probabilities[t] - u)};
    sum += probabilities[t];
  }
  return result;
}

inline std::vector<double> log_softmax(const std::vector<float>& logits) {
  const double max = *std::max_element(logits.begin(), logits.end());
  double sum = 0.0;
  for (const float x : logits) sum += std::exp(double{x} - max);
  std::vector<double> result;
  for (const float x : logits) result.push_back(double{x} - max - std::log(sum));
  return result;
}

}  // namespace reference
