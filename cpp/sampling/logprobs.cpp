#include "sampling/logprobs.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/text.hpp"
#include "pagedcore/error.hpp"
#include "sampling/logits_processors.hpp"
#include "sampling/row_kernels.hpp"
#include "sampling/top_k.hpp"

namespace pagedcore {
namespace sampling {

float checked_max(std::span<const float> logits) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  if (logits.empty()) throw InvalidArgument("a row of logits is empty: the vocabulary has one token at least");
  const float max = row_max(logits);
  if (max < kInfinity && max > -kInfinity) return max;
  if (max == -kInfinity) {
    throw Corrupt(str("all ", logits.size(), " logits are -inf: the model's output is unusable; check its weights"));
  }
  const auto bad = std::find_if(logits.begin(), logits.end(), [](float x) { return !(x < kInfinity); });
  throw Corrupt(str("logit of token ", bad - logits.begin(), " is ", *bad,
                    ": the model's output is unusable; check its weights, or compute in f32"));
}

PositionLogprobs row_logprobs(std::span<const float> logits, float max, TokenId token, const Reported& reported,
                              Scratch& scratch) {
  const double log_sum = double{max} + std::log(exp_sum(logits, max, 1.0f));
  const auto logprob = [&](TokenId t) {
    return static_cast<float>(double{logits[static_cast<std::size_t>(t)]} - log_sum);
  };

  const auto ranked = [&](TokenId t) -> TokenLogprob {
    const auto at = static_cast<std::size_t>(t);
    const std::size_t better = count_greater(logits, logits[at]) + count_equal(logits.first(at), logits[at]);
    return {t, logprob(t), static_cast<std::int32_t>(better) + 1};
  };

  PositionLogprobs result;
  result.chosen = ranked(token);

  if (reported.top > 0) {
    std::vector<TokenId>& tokens = scratch.tokens;
    top_k(logits, static_cast<std::size_t>(reported.top), tokens, scratch);
    std::sort(tokens.begin(), tokens.end(), [&](TokenId a, TokenId b) {
      const float x = logits[static_cast<std::size_t>(a)], y = logits[static_cast<std::size_t>(b)];
      return x != y ? x > y : a < b;
    });
    result.top.reserve(tokens.size() + reported.token_ids.size());
    for (const TokenId t : tokens) {
      result.top.push_back({t, logprob(t), static_cast<std::int32_t>(result.top.size()) + 1});
    }
  }
  for (const TokenId t : reported.token_ids) result.top.push_back(ranked(t));
  return result;
}

PositionLogprobs checked_logprobs(std::span<const float> logits, TokenId token, const Reported& reported,
                                  Scratch& scratch) {
  const float max = checked_max(logits);
  index_of(token, logits.size());
  for (const TokenId t : reported.token_ids) index_of(t, logits.size());
  return row_logprobs(logits, max, token, reported, scratch);
}

}  // namespace sampling

PositionLogprobs logprobs_of(std::span<const float> logits, TokenId token, std::int32_t top) {
  sampling::Scratch scratch;
  return sampling::checked_logprobs(logits, token, {.top = top}, scratch);
}

LogprobTable::LogprobTable(std::size_t positions, std::size_t room)
    : width(static_cast<std::uint32_t>(room)), chosen(positions), counts(positions), others(positions * room) {}

void LogprobTable::set(std::size_t position, const PositionLogprobs& logprobs) {
  if (logprobs.top.size() > width)
    throw InvalidArgument(str(logprobs.top.size(), " log-probabilities at a position that has room for ", width));
  chosen.at(position) = logprobs.chosen;
  counts[position] = static_cast<std::uint32_t>(logprobs.top.size());
  std::ranges::copy(logprobs.top, others.begin() + static_cast<std::ptrdiff_t>(position * width));
}

void LogprobTable::append(const PositionLogprobs& logprobs, std::size_t most) {
  const std::size_t before = size(), room = std::max<std::size_t>(before > 0 ? width : 0, logprobs.top.size());
  if (before > 0 && room > width) {  // tokens of probability 0 were left out so far
    LogprobTable wider(before, room);
    for (std::size_t i = 0; i < before; ++i) wider.set(i, (*this)[i]);
    *this = std::move(wider);
  }
  if (before == 0) width = static_cast<std::uint32_t>(room);
  if (before == chosen.capacity() || (before + 1) * width > others.capacity()) {
    const std::size_t more = std::min(std::max(most, before + 1), before + std::max<std::size_t>(before / 2, 8));
    chosen.reserve(more);
    counts.reserve(more);
    others.reserve(more * width);
  }
  chosen.emplace_back();
  counts.push_back(0);
  others.resize((before + 1) * width);
  set(before, logprobs);
}

std::span<const TokenLogprob> LogprobTable::top(std::size_t position) const {
  if (position >= size()) throw InvalidArgument(str("position ", position, " of ", size(), " log-probabilities"));
  if (counts.size() != size() || others.size() / size() != width || counts[position] > width)
    throw InvalidArgument(str("log-probabilities of ", size(), " positions have ", counts.size(), " counts and ",
                              others.size(), " others, for a width of ", width));
  return std::span(others).subspan(position * width, counts[position]);
}

PositionLogprobs LogprobTable::operator[](std::size_t position) const {
  const std::span<const TokenLogprob> listed = top(position);
  return {chosen[position], {listed.begin(), listed.end()}};
}

std::vector<PositionLogprobs> LogprobTable::positions() const {
  std::vector<PositionLogprobs> list;
  list.reserve(size());
  for (std::size_t i = 0; i < size(); ++i) list.push_back((*this)[i]);
  return list;
}

}  // namespace pagedcore
