// The device's choices are the host's, token by token.
#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <random>

#include "device_sampler.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore::cuda {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

enum class RowShape { normal, flat, ties, holes };

std::vector<float> draw_row(std::size_t vocab, RowShape shape, std::mt19937& random) {
  std::normal_distribution<float> normal(0.0f, shape == RowShape::flat ? 0.01f : 3.0f);
  std::vector<float> row(vocab);
  for (float& x : row) {
    x = normal(random);
    if (shape == RowShape::ties) x = std::round(x);  // also makes zeros of both signs
    if (shape == RowShape::holes && random() % 3 == 0) x = -kInfinity;
  }
  row[random() % vocab] = 1.0f;  // one possible token at least
  return row;
}

/// Of two doubles that differ by their last bit, the floats may do so as well: log() is not correctly rounded.
bool same_logprob(float a, float b) { return a == b || std::nextafter(a, b) == b; }

void check_same(const TokenLogprob& device, const TokenLogprob& host) {
  CHECK(device.token == host.token);
  CHECK(same_logprob(device.logprob, host.logprob));
  CHECK(device.rank == host.rank);
}

/// Every request on a row of its own, on the device in one batch and on the host.
void check_requests(std::span<const SamplingParams> requests, std::size_t vocab, std::uint32_t seed,
                    std::span<const TokenId> prompt = {}, std::span<const TokenId> output = {}) {
  std::mt19937 random(seed);
  std::vector<std::vector<float>> rows;
  std::vector<SampleContext> contexts;
  for (std::size_t i = 0; i < requests.size(); ++i) {
    rows.push_back(draw_row(vocab, static_cast<RowShape>(i % 4), random));
    contexts.push_back({&requests[i], prompt, output, static_cast<std::uint32_t>(i)});
  }
  const auto outcomes = sample_on_device(rows, contexts);
  for (std::size_t i = 0; i < requests.size(); ++i) {
    CAPTURE(vocab);
    CAPTURE(i);
    SampleOutcome host;
    try {
      host = sample(rows[i], contexts[i]);
    } catch (const InvalidArgument&) {
      CHECK(outcomes[i].status == RowStatus::empty);
      continue;
    }
    CHECK(outcomes[i].status == RowStatus::ok);
    CHECK(outcomes[i].token == host.token);
    if (!requests[i].logprobs || outcomes[i].token != host.token) continue;
    check_same(outcomes[i].logprobs.chosen, host.logprobs.chosen);
    REQUIRE(outcomes[i].logprobs.top.size() == host.logprobs.top.size());
    for (std::size_t j = 0; j < host.logprobs.top.size(); ++j)
      check_same(outcomes[i].logprobs.top[j], host.logprobs.top[j]);
  }
}

/// Temperatures and truncations, alone and together.
std::vector<SamplingParams> truncations() {
  std::vector<SamplingParams> all;
  for (const float temperature : {0.0f, 0.3f, 1.0f, 4.0f, 1e-42f})
    for (const std::int32_t top_k : {0, 1, 20})
      for (const float top_p : {1.0f, 0.9f, 0.3f})
        for (const float min_p : {0.0f, 0.05f}) {
          if (temperature == 0.0f && (top_k != 0 || top_p != 1.0f || min_p != 0.0f)) continue;
          SamplingParams p;
          p.temperature = temperature;
          p.top_k = top_k;
          p.top_p = top_p;
          p.min_p = min_p;
          p.seed = 0x123456789abcull + all.size();
          all.push_back(p);
        }
  return all;
}

TEST_CASE("temperature, top-k, top-p and min-p choose the host's tokens") {
  const auto requests = truncations();
  for (const std::size_t vocab : {std::size_t{1}, std::size_t{31}, std::size_t{700}, std::size_t{2061}})
    check_requests(requests, vocab, static_cast<std::uint32_t>(vocab));
}

TEST_CASE("a draw among many kept tokens, and from a row without any truncation") {
  std::vector<SamplingParams> requests;
  for (int i = 0; i < 48; ++i) {
    SamplingParams p;
    p.temperature = i % 2 == 0 ? 1.0f : 5.0f;
    p.top_p = i % 4 == 0 ? 1.0f : 0.98f;
    p.top_k = i % 4 == 1 ? 1500 : 0;
    p.seed = static_cast<std::uint64_t>(i) << 40;
    requests.push_back(p);
  }
  check_requests(requests, 3000, 5);
}

TEST_CASE("a choice that the order of a sum could change is left undecided") {
  // Tokens of equal weight, which sum up exactly: half of them is just enough, and nothing else is close.
  const std::vector<std::vector<float>> rows(3, std::vector<float>(1000, 0.0f));
  std::vector<SamplingParams> requests(3);
  requests[0].top_p = 0.5f;
  requests[1].top_p = 0.4995f;
  requests[2].top_p = 0.5f;
  requests[2].min_p = 0.5f;
  std::vector<SampleContext> contexts;
  for (const SamplingParams& p : requests) contexts.push_back({&p, {}, {}, 0});
  const auto outcomes = sample_on_device(rows, contexts);
  CHECK(outcomes[0].status == RowStatus::undecided);
  CHECK(outcomes[0].token == -1);
  CHECK(outcomes[1].status == RowStatus::ok);
  CHECK(outcomes[1].token == sample(rows[1], contexts[1]).token);
  CHECK(outcomes[2].status == RowStatus::undecided);

  // A draw among 4096 tokens of equal weight. The seed was searched for: its draw is 1471 / 4096 within 1e-12.
  std::vector<float> wide(5000, 0.0f);
  std::fill(wide.begin() + 4096, wide.end(), -100.0f);
  SamplingParams p;
  p.top_k = 4096;
  for (const std::uint64_t seed : {1u, 2u, 119415082u}) {
    p.seed = seed;
    const SampleContext context{&p, {}, {}, 0};
    const auto outcome = sample_on_device({{wide}}, {{context}})[0];
    if (seed > 2) {
      CHECK(std::fabs(uniform(seed, 0, 0) * 4096.0 - 1471.0) < 4e-9);
      CHECK(outcome.status == RowStatus::undecided);
    } else {
      CHECK(outcome.status == RowStatus::ok);
      CHECK(outcome.token == sample(wide, context).token);
    }
  }
}

TEST_CASE("penalties, bias and masks") {
  constexpr std::size_t kVocab = 300;
  std::mt19937 random(3);
  std::vector<TokenId> prompt(40), output(60);
  for (TokenId& t : prompt) t = static_cast<TokenId>(random() % kVocab);
  for (TokenId& t : output) t = static_cast<TokenId>(random() % 30);  // many repeat
  std::vector<SamplingParams> requests;
  for (int i = 0; i < 64; ++i) {
    SamplingParams p;
    p.seed = static_cast<std::uint64_t>(i);
    p.temperature = i % 5 == 0 ? 0.0f : 1.5f;
    if (i % 2 == 1) p.repetition_penalty = i % 4 == 1 ? 1.3f : 0.7f;
    if (i % 3 == 1) p.frequency_penalty = 0.37f;
    if (i % 3 == 2) p.presence_penalty = -1.1f;
    if (i % 4 == 2) p.logit_bias = {{7, 3.5f}, {9, -kInfinity}, {7, 0.3f}, {299, 1e38f}, {299, 3e38f}, {7, -0.1f}};
    if (i % 4 == 3) p.banned_tokens = {0, 1, 2, 31, 32, 299};
    if (i % 8 == 4) p.allowed_token_ids = {3, 64, 200, 201, 202};
    if (i % 8 == 5) {
      p.min_tokens = 100;
      p.max_tokens = 200;
      p.stop_token_ids = {5, 6, 64};
    }
    if (i == 60) {  // nothing is left
      p.allowed_token_ids = {3};
      p.banned_tokens = {3};
    }
    if (i == 61) {  // what is left is the lowest float, which is no ban
      p.allowed_token_ids = {3};
      p.logit_bias = {{3, -3e38f}, {3, -3e38f}};
    }
    p.logprobs = i % 3 == 0 ? 0 : i % 7;
    requests.push_back(p);
  }
  check_requests(requests, kVocab, 11, prompt, output);
}

TEST_CASE("log-probabilities, ranks and the most likely tokens, also more than are possible") {
  std::vector<SamplingParams> requests;
  for (int i = 0; i < 12; ++i) {
    SamplingParams p;
    p.seed = static_cast<std::uint64_t>(i);
    p.logprobs = std::array{0, 1, 20, 300}[static_cast<std::size_t>(i / 4)];
    requests.push_back(p);
  }
  check_requests(requests, 300, 4);
  check_requests(requests, 1500, 5);
}

TEST_CASE("beam candidates, where close logits round to one log-probability") {
  std::mt19937 random(9);
  for (int i = 0; i < 6; ++i) {
    std::vector<float> row = draw_row(900, static_cast<RowShape>(i % 4), random);
    if (i == 5)
      for (float& x : row) x = -1e-6f * static_cast<float>(random() % 50);
    for (const std::int32_t count : {2, 16, 900}) {
      const auto device = beam_candidates_on_device(row, count);
      sampling::Scratch scratch;
      const auto host = sampling::beam_candidates(row, static_cast<std::size_t>(count), scratch);
      REQUIRE(device.size() == host.size());
      for (std::size_t j = 0; j < host.size(); ++j) {
        CHECK(device[j].token == host[j].token);
        CHECK(same_logprob(device[j].logprob, host[j].logprob));
      }
    }
  }
}

TEST_CASE("a row that is no distribution is reported, and its neighbours are sampled") {
  std::mt19937 random(1);
  std::vector<std::vector<float>> rows(5, draw_row(100, RowShape::normal, random));
  rows[0][99] = std::numeric_limits<float>::quiet_NaN();
  rows[1][0] = kInfinity;
  rows[2].assign(100, -kInfinity);
  rows[4][50] = -std::numeric_limits<float>::quiet_NaN();
  SamplingParams params;
  const std::vector<SampleContext> contexts(5, SampleContext{&params, {}, {}, 0});
  const auto outcomes = sample_on_device(rows, contexts);
  for (const std::size_t i : {std::size_t{0}, std::size_t{1}, std::size_t{2}, std::size_t{4}}) {
    CHECK_THROWS_AS(sample(rows[i], contexts[i]), Corrupt);
    CHECK(outcomes[i].status == RowStatus::corrupt);
    CHECK(outcomes[i].logprob_status == RowStatus::corrupt);
    CHECK(outcomes[i].token == -1);
  }
  CHECK(outcomes[3].status == RowStatus::ok);
  CHECK(outcomes[3].token == sample(rows[3], contexts[3]).token);
}

}  // namespace
}  // namespace pagedcore::cuda
