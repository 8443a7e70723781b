// The mask that a backend which samples for itself gets, instead of an edited row.
#include <doctest/doctest.h>

#include <algorithm>
#include <random>
#include <vector>

#include "pagedcore/error.hpp"
#include "reference.hpp"
#include "sampling/logits_processors.hpp"

using namespace pagedcore;
using sampling::token_mask;

TEST_CASE("a mask lets through what the reference can choose") {
  std::mt19937 random(41);
  int empty = 0, full = 0;
  for (int trial = 0; trial < 2000; ++trial) {
    const std::size_t vocab = 1 + random() % 100;
    const auto some = [&](std::size_t most) {
      std::vector<TokenId> tokens(random() % 2 == 0 ? 0 : random() % (most + 1));
      for (TokenId& token : tokens) token = static_cast<TokenId>(random() % vocab);
      return tokens;
    };
    SamplingParams p;
    p.allowed_token_ids = some(vocab);
    p.banned_tokens = some(4);
    p.stop_token_ids = some(3);
    p.min_tokens = static_cast<std::uint32_t>(random() % 3);
    const std::vector<TokenId> output(random() % 3, TokenId{0});
    const SampleContext context{&p, {}, output, 0};

    const auto row = reference::processed(std::vector<float>(vocab, 0.0f), context);
    const auto mask = token_mask(context, vocab);
    CAPTURE(trial);
    if (mask.empty()) {
      ++empty;
      CHECK(std::ranges::count(row, -reference::kInf) == 0);
      continue;
    }
    ++full;
    REQUIRE(mask.size() == (vocab + 31) / 32);
    for (std::size_t t = 0; t < vocab; ++t) {
      const bool lets_through = (mask[t / 32] >> t % 32 & 1u) != 0;
      REQUIRE(lets_through == (row[t] > -reference::kInf));
    }
  }
  CHECK(empty > 200);
  CHECK(full > 200);
}

TEST_CASE("there is no mask where every token may be chosen, also once stop tokens may") {
  SamplingParams p;
  CHECK(token_mask({&p, {}, {}, 0}, 40).empty());
  p.stop_token_ids = {3};
  p.min_tokens = 1;
  const std::vector<TokenId> output = {0};
  CHECK(token_mask({&p, {}, {}, 0}, 40) == std::vector<std::uint32_t>{~8u, ~0u});
  CHECK(token_mask({&p, {}, output, 0}, 40).empty());
  p.banned_tokens = {40};
  CHECK_THROWS_AS(token_mask({&p, {}, output, 0}, 40), InvalidArgument);
}
