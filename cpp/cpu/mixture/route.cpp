#include <algorithm>
#include <cmath>
#include <limits>

#include "cpu/elementwise/rows.hpp"
#include "cpu/mixture/mixture.hpp"

namespace pagedcore::cpu {
namespace {

constexpr std::int64_t kExpCost = 8;  // in elements that are only compared

float logit(float x) { return x == x ? x : -std::numeric_limits<float>::infinity(); }

/// Writes the `count` experts of the largest logits, of equal ones the first, in ascending order.
void choose(const float* logits, std::int64_t experts, std::int32_t* chosen, std::int64_t count) {
  // `chosen` holds the best so far, best first.
  std::int64_t size = 0;
  for (std::int64_t expert = 0; expert < experts; ++expert) {
    const float value = logit(logits[expert]);
    std::int64_t place = size;
    while (place > 0 && value > logit(logits[chosen[place - 1]])) --place;
    if (place == count) continue;
    size = std::min(size + 1, count);
    for (std::int64_t i = size - 1; i > place; --i) chosen[i] = chosen[i - 1];
    chosen[place] = static_cast<std::int32_t>(expert);
  }
  std::sort(chosen, chosen + count);
}

/// exp(logit - largest), or 1 where both are infinite.
float weight_of(float x, float largest) { return x == largest ? 1.0f : std::exp(x - largest); }

void route_row(const float* logits, std::int64_t experts, std::int32_t* chosen, float* shares, std::int64_t count,
               const RouterParams& p) {
  choose(logits, experts, chosen, count);
  float largest = logit(logits[chosen[0]]), all = 0.0f, taken = 0.0f;
  for (std::int64_t slot = 1; slot < count; ++slot) largest = std::max(largest, logit(logits[chosen[slot]]));
  for (std::int64_t slot = 0; slot < count; ++slot) {
    shares[slot] = weight_of(logit(logits[chosen[slot]]), largest);
    taken += shares[slot];
  }
  // Shares that are divided by their sum do not know what they were divided by before.
  const bool of_chosen = p.kind == RouterKind::chosen_softmax || p.renormalize;
  if (!of_chosen)
    for (std::int64_t expert = 0; expert < experts; ++expert) all += weight_of(logit(logits[expert]), largest);
  const float sum = of_chosen ? taken : all;
  for (std::int64_t slot = 0; slot < count; ++slot) shares[slot] = p.scale * (shares[slot] / sum);
  if (p.gate) shares[count] = 1.0f / (1.0f + std::exp(-logits[experts]));
}

}  // namespace

void route(ThreadPool& pool, const Routing& out, const Tensor& logits, const RouterParams& params) {
  check_route(out, logits, params);
  const std::int64_t experts = logits.cols - (params.gate ? 1 : 0);
  for_each_row(pool, logits.rows, (kExpCost + out.experts.cols) * experts, [&](std::int64_t row) {
    route_row(row_of<float>(logits, row), experts, row_of<std::int32_t>(out.experts, row),
              row_of<float>(out.shares, row), out.experts.cols, params);
  });
}

}  // namespace pagedcore::cpu
