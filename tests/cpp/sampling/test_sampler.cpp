#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <random>
#include <thread>

#include "pagedcore/error.hpp"
#include "pagedcore/sampling.hpp"
#include "reference.hpp"
#include "sampling/logits_processors.hpp"
#include "sampling/row_kernels.hpp"

using namespace pagedcore;

namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

std::vector<float> random_logits(std::mt19937& rng, std::size_t vocab, float spread) {
  std::normal_distribution<float> normal(0.0f, spread);
  std::vector<float> row(vocab);
  for (float& x : row) x = normal(rng);
  return row;
}

std::vector<TokenId> random_tokens(std::mt19937& rng, std::size_t vocab, std::size_t count) {
  std::vector<TokenId> tokens(count);
  for (TokenId& t : tokens) t = static_cast<TokenId>(rng() % vocab);
  return tokens;
}

}  // namespace

// rule: sampling.penalties-as-elsewhere, sampling.draw-in-token-order
TEST_CASE("every parameter, alone and combined, gives the token of the double-precision reference") {
  std::mt19937 rng(20);
  int near_boundary = 0, compared = 0;
  for (int trial = 0; trial < 6000; ++trial) {
    const std::size_t vocab = std::vector<std::size_t>{5, 40, 700, 3000}[rng() % 4];
    auto logits = random_logits(rng, vocab, std::vector<float>{0.3f, 2.0f, 8.0f}[rng() % 3]);
    if (rng() % 4 == 0) logits[rng() % vocab] = -kInf;
    // One parameter in one half of the trials, each with probability 1/3 in the other.
    const auto only = static_cast<int>(rng() % 16);
    const bool combined = trial % 2 == 1;
    int index = 0;
    const auto on = [&] { return combined ? rng() % 3 == 0 : index++ == only; };
    SamplingParams p;
    p.max_tokens = 100;
    p.seed = rng();
    if (on()) p.temperature = std::vector<float>{0.0f, 1e-5f, 0.3f, 1.7f, 1e4f}[rng() % 5];
    if (on()) p.top_k = std::vector<std::int32_t>{-1, 1, 2, 20, 1000, 100000}[rng() % 6];
    if (on()) p.top_p = std::vector<float>{1e-6f, 0.1f, 0.5f, 0.9f, 0.999f}[rng() % 5];
    if (on()) p.min_p = std::vector<float>{1e-4f, 0.02f, 0.3f, 1.0f}[rng() % 4];
    if (on()) p.repetition_penalty = std::vector<float>{0.5f, 1.3f, 5.0f}[rng() % 3];
    if (on()) p.presence_penalty = std::vector<float>{-2.0f, 0.7f, 2.0f}[rng() % 3];
    if (on()) p.frequency_penalty = std::vector<float>{-1.1f, 0.4f, 2.0f}[rng() % 3];
    if (on()) {
      for (const TokenId t : random_tokens(rng, vocab, 4))
        p.logit_bias.emplace_back(t, static_cast<float>(rng() % 9) - 4.0f);
    }
    if (on()) p.banned_tokens = random_tokens(rng, vocab, 3);
    if (on()) p.allowed_token_ids = random_tokens(rng, vocab, vocab / 2 + 4);
    if (on()) p.min_tokens = 6;
    p.stop_token_ids = random_tokens(rng, vocab, 1);
    const auto prompt = random_tokens(rng, vocab, rng() % 30);
    const auto output = random_tokens(rng, vocab, rng() % 12);
    const SampleContext context{&p, prompt, output, static_cast<std::uint32_t>(rng() % 3)};

    const auto x = reference::processed(logits, context);
    if (*std::max_element(x.begin(), x.end()) == -reference::kInf) {
      CHECK_THROWS_AS(sample(logits, context), InvalidArgument);
      continue;
    }
    const auto probabilities = reference::distribution(logits, context);
    const auto expected =
        reference::draw(probabilities, uniform(p.seed, context.sample, prompt.size() + output.size()));
    const auto got = sample(logits, context);
    CAPTURE(trial);
    CHECK(got.stop == (got.token == p.stop_token_ids[0]));
    // Single precision moves the boundaries between tokens by about 1e-6, and very large logits / temperature by more.
    const double tolerance = p.temperature < 0.01f && p.temperature > 0.0f ? 1e-2 : 2e-6;
    if (p.temperature > 0.0f && expected.margin < tolerance) {
      ++near_boundary;
      CHECK_UNARY(x[static_cast<std::size_t>(got.token)] > -reference::kInf);
      continue;
    }
    ++compared;
    CHECK(got.token == expected.token);
  }
  CHECK(compared > 5000);
  CHECK(near_boundary < 300);
}

// rule: sampling.one-rank-order
TEST_CASE("greedy takes the first of equal logits") {
  SamplingParams p;
  p.temperature = 0.0f;
  std::vector<float> logits(1000, 1.0f);
  CHECK(sample(logits, {&p, {}, {}, 0}).token == 0);
  logits[700] = logits[701] = 2.0f;
  CHECK(sample(logits, {&p, {}, {}, 0}).token == 700);
  logits[3] = -0.0f, logits.resize(4), logits[0] = 0.0f, logits[1] = logits[2] = -1.0f;
  CHECK(sample(logits, {&p, {}, {}, 0}).token == 0);
}

TEST_CASE("a likely token is drawn wherever it lies in its block, and among the candidates") {
  constexpr std::size_t kSize = 3 * sampling::kSumBlock;
  for (std::size_t at = 0; at < kSize; ++at) {
    std::vector<float> logits(kSize, -200.0f);  // whose weight is 0
    logits[at] = 0.0f;
    SamplingParams p;
    CHECK(sample(logits, {&p, {}, {}, 0}).token == static_cast<TokenId>(at));
    p.top_p = 0.5f;
    CHECK(sample(logits, {&p, {}, {}, 0}).token == static_cast<TokenId>(at));
  }
}

TEST_CASE("stop tokens are impossible before min_tokens") {
  SamplingParams p;
  p.temperature = 0.0f;
  p.min_tokens = 2;
  p.stop_token_ids = {3};
  const std::vector<float> logits = {0.0f, 1.0f, 2.0f, 9.0f};
  const std::vector<TokenId> output = {0, 1};
  const auto early = sample(logits, {&p, {}, std::span(output).first(1), 0});
  CHECK(early.token == 2);
  CHECK_FALSE(early.stop);
  const auto late = sample(logits, {&p, {}, output, 0});
  CHECK(late.token == 3);
  CHECK(late.stop);
}

// rule: sampling.finite-stays-finite
TEST_CASE("extreme parameters stay finite") {
  std::mt19937 rng(21);
  const auto logits = random_logits(rng, 2000, 5.0f);
  const auto best = std::max_element(logits.begin(), logits.end()) - logits.begin();
  const std::vector<TokenId> prompt = {1, 2, 3};
  SamplingParams p;
  for (const float temperature : {1e-45f, 1e-38f, 1e-5f}) {
    p.temperature = temperature;
    CHECK(sample(logits, {&p, prompt, {}, 0}).token == best);
    p.top_p = 0.5f;
    CHECK(sample(logits, {&p, prompt, {}, 0}).token == best);
    p.top_p = 1.0f;
  }
  for (const float temperature : {1e4f, 1e38f, 3e38f}) {  // nearly uniform
    p.temperature = temperature;
    for (const float top_p : {1.0f, 0.5f}) {
      p.top_p = top_p;
      const auto token = sample(logits, {&p, prompt, {}, 0}).token;
      CHECK_UNARY(token >= 0 && token < 2000);
    }
  }
  p = {};
  p.repetition_penalty = 1e-38f;  // a positive logit of the prompt saturates rather than becoming infinite
  CHECK_UNARY(sample(logits, {&p, prompt, {}, 0}).token <= 3);
  p = {};
  p.logit_bias = {{5, 3e38f}, {5, 3e38f}};
  CHECK(sample(logits, {&p, prompt, {}, 0}).token == 5);
}

// rule: sampling.finite-stays-finite
TEST_CASE("a penalty or a bias that overflows stops at the largest float, and leaves what is impossible so") {
  constexpr float kMost = std::numeric_limits<float>::max();
  const std::vector<float> logits = {50.0f, -50.0f, 0.5f, -kInf};
  const std::vector<TokenId> prompt = {0, 1, 3}, output = {1};
  sampling::Scratch scratch;
  const auto processed = [&](const SamplingParams& p) {
    const auto row = sampling::process_logits(logits, {&p, prompt, output, 0}, scratch);
    return std::vector<float>(row.begin(), row.end());
  };
  SamplingParams penalty, bias;
  penalty.repetition_penalty = 1e-38f;
  CHECK(processed(penalty) == std::vector<float>{kMost, -50.0f * 1e-38f, 0.5f, -kInf});
  bias.logit_bias = {{0, kMost}, {0, kMost}, {3, kMost}};
  CHECK(processed(bias) == std::vector<float>{kMost, -50.0f, 0.5f, -kInf});
  // Downwards it is the lowest float, which may still be drawn; only a bias of -inf bans.
  penalty.repetition_penalty = 1e38f;
  CHECK(processed(penalty) == std::vector<float>{50.0f / 1e38f, -kMost, 0.5f, -kInf});
  bias.logit_bias = {{1, -kMost}, {1, -kMost}, {2, -kInf}, {2, kMost}};
  CHECK(processed(bias) == std::vector<float>{50.0f, -kMost, -kInf, -kInf});
}

TEST_CASE("a call that is refused leaves no count of a token behind") {
  SamplingParams p;
  p.presence_penalty = 1.0f;
  p.repetition_penalty = 2.0f;
  const std::vector<float> logits = {4.0f, 4.0f, 4.0f, 4.0f};
  const std::vector<TokenId> prompt = {0}, outside = {1, 4}, output = {2};
  sampling::Scratch scratch;
  CHECK_THROWS_AS(sampling::process_logits(logits, {&p, prompt, outside, 0}, scratch), InvalidArgument);
  const auto row = sampling::process_logits(logits, {&p, {}, output, 0}, scratch);
  CHECK(std::vector<float>(row.begin(), row.end()) == std::vector<float>{4.0f, 4.0f, 4.0f / 2.0f - 1.0f, 4.0f});
}

// rule: sampling.unsound-row-is-corrupt
TEST_CASE("unusable rows and unusable requests are told apart") {
  SamplingParams p;
  std::vector<float> logits(100, 1.0f);
  CHECK_THROWS_AS(sample(logits, {}), InvalidArgument);
  CHECK_THROWS_AS(sample({}, {&p, {}, {}, 0}), InvalidArgument);
  for (const std::size_t at : {0u, 50u, 99u}) {
    for (const float bad : {std::numeric_limits<float>::quiet_NaN(), kInf}) {
      auto row = logits;
      row[at] = bad;
      CHECK_THROWS_AS(sample(row, {&p, {}, {}, 0}), Corrupt);
      CHECK_THROWS_AS(logprobs_of(row, 0, 0), Corrupt);
    }
  }
  CHECK_THROWS_WITH_AS(sample(std::vector<float>(100, -kInf), {&p, {}, {}, 0}),
                       "all 100 logits are -inf: the model's output is unusable; check its weights", Corrupt);
  p.allowed_token_ids = {7};
  CHECK(sample(logits, {&p, {}, {}, 0}).token == 7);
  p.banned_tokens = {7};
  CHECK_THROWS_AS(sample(logits, {&p, {}, {}, 0}), InvalidArgument);
  CHECK_THROWS_AS(logprobs_of(logits, 100, 0), InvalidArgument);
  CHECK_THROWS_AS(logprobs_of(logits, -1, 0), InvalidArgument);

  // A token outside the row fails the call and leaves no trace in the next one.
  SamplingParams penalty;
  penalty.temperature = 0.0f;
  penalty.repetition_penalty = 2.0f;
  const std::vector<TokenId> bad = {0, 100}, good = {1};
  CHECK_THROWS_AS(sample(logits, {&penalty, bad, {}, 0}), InvalidArgument);
  CHECK(sample(logits, {&penalty, good, {}, 0}).token == 0);
}

// rule: sampling.logprobs-of-the-model
TEST_CASE("log-probabilities are those of the model, whatever the sampling parameters") {
  std::mt19937 rng(22);
  for (const std::size_t vocab : {3u, 100u, 49152u}) {
    auto logits = random_logits(rng, vocab, 4.0f);
    logits[vocab / 2] = logits[0];  // a tie
    if (vocab > 3) logits[1] = -kInf;
    const auto expected = reference::log_softmax(logits);
    std::vector<std::size_t> order(vocab);
    for (std::size_t i = 0; i < vocab; ++i) order[i] = i;
    std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return logits[a] > logits[b]; });

    SamplingParams p;
    p.logprobs = 3;
    p.temperature = 2.0f;
    p.frequency_penalty = 1.0f;
    p.seed = 5;
    const std::vector<TokenId> output = {0, 0, 2};
    const auto outcome = sample(logits, {&p, {}, output, 0});
    CHECK(outcome.logprobs.chosen.token == outcome.token);
    for (const TokenId token : {TokenId{0}, outcome.token, static_cast<TokenId>(vocab - 1)}) {
      const auto got = logprobs_of(logits, token, 3);
      CHECK(got.chosen.logprob == doctest::Approx(expected[static_cast<std::size_t>(token)]).epsilon(1e-6));
      const auto rank = std::find(order.begin(), order.end(), static_cast<std::size_t>(token)) - order.begin() + 1;
      CHECK(got.chosen.rank == rank);
      REQUIRE(got.top.size() == 3);
      for (std::size_t i = 0; i < 3; ++i) {
        CHECK(got.top[i].token == static_cast<TokenId>(order[i]));
        CHECK(got.top[i].rank == static_cast<std::int32_t>(i) + 1);
        CHECK(got.top[i].logprob == doctest::Approx(expected[order[i]]).epsilon(1e-6));
        CHECK(outcome.logprobs.top[i].token == got.top[i].token);
      }
    }
  }
  for (const TokenId token : {1, 2}) {  // equal ones rank by token
    CHECK(logprobs_of(std::vector<float>{1.0f, 2.0f, 2.0f, 0.0f}, token, 0).chosen.rank == token);
  }
  CHECK(logprobs_of(std::vector<float>{0.0f, -kInf}, 1, 0).chosen.logprob == -kInf);
  CHECK(logprobs_of(std::vector<float>{0.0f, -kInf}, 1, 2).top.size() == 1);
}

TEST_CASE("log-probabilities of named tokens are reported behind the most likely ones") {
  const std::vector<float> logits{1.0f, 3.0f, -std::numeric_limits<float>::infinity(), 2.0f, 3.0f};
  SamplingParams p;
  p.temperature = 0.0f;
  p.logprob_token_ids = {3, 2, 1};
  const double sum = std::log(std::exp(1.0) + 2 * std::exp(3.0) + std::exp(2.0));
  for (const int top : {-2, 0, 2}) {  // -2: none are asked for
    p.logprobs = top == -2 ? std::nullopt : std::optional<std::int32_t>(top);
    const PositionLogprobs found = sample(logits, {&p, {}, {}, 0}).logprobs;
    const auto named = static_cast<std::size_t>(std::max(top, 0));
    CHECK(found.chosen.token == 1);
    REQUIRE(found.top.size() == named + 3);
    CHECK(found.top[named].token == 3);
    CHECK(found.top[named].logprob == doctest::Approx(2.0 - sum));
    CHECK(found.top[named].rank == 3);
    CHECK(found.top[named + 1].token == 2);
    CHECK(found.top[named + 1].logprob == -std::numeric_limits<float>::infinity());
    CHECK(found.top[named + 1].rank == 5);
    CHECK(found.top[named + 2].token == 1);
    CHECK(found.top[named + 2].rank == 1);
  }
  p.logprob_token_ids = {5};
  CHECK_THROWS_AS(sample(logits, {&p, {}, {}, 0}), InvalidArgument);
  CHECK_THROWS_AS(validate(p, 5), InvalidArgument);
  p.logprob_token_ids.assign(1025, 1);
  CHECK_THROWS_AS(validate(p), InvalidArgument);
  p.logprob_token_ids.clear();
  p.prompt_logprob_start = 1;
  CHECK_THROWS_AS(validate(p), InvalidArgument);  // without prompt_logprobs
}

// rule: sampling.same-key-same-bits, sampling.draws-have-no-state
TEST_CASE("a draw is the same bits on every thread and in every order of calls") {
  std::mt19937 rng(23);
  std::vector<std::vector<float>> rows;
  std::vector<SamplingParams> params(24);
  for (std::size_t i = 0; i < params.size(); ++i) {
    rows.push_back(random_logits(rng, 1000 + 137 * i, 3.0f));
    params[i].seed = i;
    params[i].logprobs = 2;
    params[i].top_p = i % 2 ? 0.8f : 1.0f;
    params[i].top_k = i % 3 ? 40 : 0;
    params[i].repetition_penalty = i % 4 ? 1.0f : 1.2f;
  }
  const std::vector<TokenId> prompt = {1, 2, 3}, output = {4, 4};
  const auto run = [&](std::size_t i) { return sample(rows[i], {&params[i], prompt, output, 0}); };
  std::vector<SampleOutcome> forward(rows.size()), backward(rows.size());
  for (std::size_t i = 0; i < rows.size(); ++i) forward[i] = run(i);
  std::thread([&] {
    for (std::size_t i = rows.size(); i-- > 0;) backward[i] = run(i);
  }).join();
  for (std::size_t i = 0; i < rows.size(); ++i) {
    CHECK(forward[i].token == backward[i].token);
    CHECK(std::bit_cast<std::uint32_t>(forward[i].logprobs.chosen.logprob) ==
          std::bit_cast<std::uint32_t>(backward[i].logprobs.chosen.logprob));
  }
}
