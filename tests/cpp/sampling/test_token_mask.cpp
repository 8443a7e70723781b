// The mask that a backend which samples for itself gets, instead of an edited row.
#include <doctest/doctest.h>

#include <algorithm>
#include <limits>
#include <random>
#include <vector>

#include "pagedcore/error.hpp"
#include "reference.hpp"
#include "sampling/logits_processors.hpp"
#include "sampling/row_kernels.hpp"
#include "sampling/sampler.hpp"

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

TEST_CASE("what a constraint allows is cut by bans, and a row sampled with it by hand") {
  const std::vector<std::uint32_t> given{0b1011'0110u, 0b1u};  // tokens 1, 2, 4, 5, 7, 32 of 40
  SamplingParams p;
  p.temperature = 0.0f;
  CHECK(token_mask({&p, {}, {}, 0}, 40, given) == given);
  p.banned_tokens = {4, 6};
  p.allowed_token_ids = {2, 3, 4, 32};
  CHECK(token_mask({&p, {}, {}, 0}, 40, given) == std::vector<std::uint32_t>{0b100u, 0b1u});
  std::vector<float> row(40, 0.0f);
  row[3] = 9.0f;
  row[4] = 8.0f;
  row[32] = 1.0f;
  sampling::Scratch scratch;
  CHECK(sampling::sample(row, {&p, {}, {}, 0}, scratch, given).token == 32);
  const std::vector<std::uint32_t> none{1u << 3, 0u};
  p.allowed_token_ids = {4};
  CHECK_THROWS_AS(sampling::sample(row, {&p, {}, {}, 0}, scratch, none), InvalidArgument);
  CHECK_THROWS_AS(token_mask({&p, {}, {}, 0}, 65, given), InvalidArgument);
}

TEST_CASE("a stop token comes before min_tokens only where the constraint leaves nothing else") {
  SamplingParams p;
  p.stop_token_ids = {5};
  p.min_tokens = 3;
  CHECK(token_mask({&p, {}, {}, 0}, 32, std::vector<std::uint32_t>{0b110'0000u}) ==
        std::vector<std::uint32_t>{0b100'0000u});
  CHECK(token_mask({&p, {}, {}, 0}, 32, std::vector<std::uint32_t>{0b10'0000u}) ==
        std::vector<std::uint32_t>{0b10'0000u});
}

TEST_CASE("a mask leaves a row as it is where its bits are set, and -inf elsewhere") {
  std::mt19937 random(7);
  for (int trial = 0; trial < 300; ++trial) {
    const std::size_t vocab = 1 + random() % 200;
    std::vector<std::uint32_t> mask((vocab + 31) / 32);
    for (std::uint32_t& word : mask) {
      word = static_cast<std::uint32_t>(random());
      if (trial % 3 == 1) word &= static_cast<std::uint32_t>(random()) & static_cast<std::uint32_t>(random());
      if (trial % 3 == 2) word |= static_cast<std::uint32_t>(random()) | static_cast<std::uint32_t>(random());
    }
    std::vector<float> row(vocab), expected(vocab);
    for (std::size_t t = 0; t < vocab; ++t) {
      row[t] = static_cast<float>(t);
      expected[t] = (mask[t / 32] >> t % 32 & 1u) != 0 ? row[t] : -std::numeric_limits<float>::infinity();
    }
    for (int level = 0; level < 3; ++level) {
      if (sampling::limit_row_isa(level) != level) continue;  // this CPU has less
      std::vector<float> elsewhere(vocab), in_place = row;
      sampling::keep_allowed(row, mask, elsewhere);
      sampling::keep_allowed(in_place, mask, in_place);
      REQUIRE(elsewhere == expected);
      REQUIRE(in_place == expected);
    }
    sampling::limit_row_isa(2);
  }
}

TEST_CASE("a row under a mask is the one without, cut: beside penalties, bias and bans too") {
  std::mt19937 random(8);
  sampling::Scratch scratch;
  for (int trial = 0; trial < 300; ++trial) {
    const std::size_t vocab = 1 + random() % 200;
    std::vector<float> logits(vocab);
    for (float& x : logits) x = static_cast<float>(random() % 1000) / 100.0f - 5.0f;
    std::vector<std::uint32_t> mask((vocab + 31) / 32);
    for (std::uint32_t& word : mask) word = static_cast<std::uint32_t>(random());
    SamplingParams p;
    if (trial % 2 == 1) p.repetition_penalty = 1.5f;
    if (trial % 3 == 1) p.logit_bias = {{0, 2.0f}};
    if (trial % 5 == 1) p.banned_tokens = {static_cast<TokenId>(random() % vocab)};
    const std::vector<TokenId> output = {static_cast<TokenId>(random() % vocab)};
    const SampleContext context{&p, {}, output, 0};
    sampling::Scratch own;
    const auto without = sampling::process_logits(logits, context, own);
    std::vector<float> expected(without.begin(), without.end());
    for (std::size_t t = 0; t < vocab; ++t) {
      if ((mask[t / 32] >> t % 32 & 1u) == 0) expected[t] = -reference::kInf;
    }
    const auto row = sampling::process_logits(logits, context, scratch, mask);
    CAPTURE(trial);
    REQUIRE(std::ranges::equal(row, expected));
  }
}
