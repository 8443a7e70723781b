// Beam search against a slow reference that keeps whole sequences, sorts everything, and is written from the published
// rules of transformers' generate().
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <ctime>
#include <limits>
#include <map>
#include <random>

#include "pagedcore/error.hpp"
#include "sampling/beam_search.hpp"

using namespace pagedcore;
using sampling::beam_candidates;
using sampling::BeamSearch;

namespace {

using Tokens = std::vector<TokenId>;

/// A made-up model: logits are a function of the tokens so far.
std::vector<float> logits_after(const Tokens& tokens, std::size_t vocab, std::uint64_t seed) {
  std::uint64_t state = seed;
  for (const TokenId token : tokens) state = (state ^ static_cast<std::uint64_t>(token + 1)) * 0x9e3779b97f4a7c15u;
  std::mt19937_64 random(state);
  std::normal_distribution<float> normal(0.0f, 2.0f);
  std::vector<float> logits(vocab);
  for (float& logit : logits) logit = normal(random);
  return logits;
}

struct Found {
  Tokens tokens;
  double score;
};

std::vector<Found> reference(const BeamSearchParams& p, std::size_t vocab, std::uint64_t seed) {
  struct Beam {
    Tokens tokens;
    double sum;
  };
  std::vector<Beam> running{{{}, 0.0}};
  std::vector<Found> finished;
  const auto penalty = [&](std::size_t length) {
    return std::pow(static_cast<double>(length), double{p.length_penalty});
  };
  for (std::size_t length = 1;; ++length) {
    std::vector<Beam> all;
    for (const Beam& beam : running) {
      const std::vector<float> logits = logits_after(beam.tokens, vocab, seed);
      double sum = 0.0;
      for (const float logit : logits) sum += std::exp(double{logit});
      for (std::size_t t = 0; t < vocab; ++t) {
        Beam next = beam;
        next.tokens.push_back(static_cast<TokenId>(t));
        next.sum += double{logits[t]} - std::log(sum);
        all.push_back(std::move(next));
      }
    }
    std::stable_sort(all.begin(), all.end(), [](const Beam& a, const Beam& b) { return a.sum > b.sum; });
    all.resize(std::min(all.size(), std::max<std::size_t>(2, 1 + p.stop_token_ids.size()) * p.beam_width));
    const bool full_before = finished.size() == p.beam_width;
    std::vector<Beam> next;
    bool all_stop = true;
    for (std::size_t i = 0; i < all.size(); ++i) {
      const bool stops = length == p.max_tokens || std::ranges::count(p.stop_token_ids, all[i].tokens.back()) > 0;
      all_stop = all_stop && stops;
      if (!stops && next.size() < p.beam_width) next.push_back(all[i]);
      if (stops && i < p.beam_width && !(full_before && p.early_stopping == EarlyStopping::immediate)) {
        finished.push_back({all[i].tokens, all[i].sum / penalty(length)});
      }
    }
    std::stable_sort(finished.begin(), finished.end(),
                     [](const Found& a, const Found& b) { return a.score > b.score; });
    if (finished.size() > p.beam_width) finished.resize(p.beam_width);
    const bool full = finished.size() == p.beam_width;
    if (all_stop || (full && p.early_stopping == EarlyStopping::immediate)) break;
    const bool far = p.early_stopping == EarlyStopping::never && p.length_penalty > 0;
    if (full && next[0].sum / penalty(far ? p.max_tokens : length) <= finished.back().score) break;
    running = std::move(next);
  }
  if (finished.size() > p.n) finished.resize(p.n);
  return finished;
}

struct Run {
  std::vector<BeamSearch::Hypothesis> hypotheses;
  std::size_t steps = 0;
};

/// As an engine drives it. Checks on the way that what was stable stays so.
Run run(const BeamSearchParams& p, std::size_t vocab, std::uint64_t seed) {
  BeamSearch search(p);
  std::vector<Tokens> beams{{}};
  Tokens stable;
  Run result;
  sampling::Scratch scratch;
  while (!search.ended()) {
    std::vector<std::vector<sampling::BeamCandidate>> candidates;
    for (const Tokens& beam : beams) {
      candidates.push_back(beam_candidates(logits_after(beam, vocab, seed), search.candidates_per_beam(), scratch));
    }
    const auto children = search.advance(candidates);
    std::vector<Tokens> next;
    for (const BeamSearch::Child& child : children) {
      next.push_back(beams.at(child.parent));
      next.back().push_back(child.token);
    }
    beams = std::move(next);
    const Tokens now = search.stable();
    REQUIRE(now.size() >= stable.size());
    CHECK(std::equal(stable.begin(), stable.end(), now.begin()));
    stable = now;
    ++result.steps;
  }
  result.hypotheses = search.hypotheses();
  CHECK(stable == result.hypotheses.at(0).tokens);
  return result;
}

}  // namespace

// rule: sampling.beams-as-transformers
TEST_CASE("hypotheses and scores are the reference's") {
  std::map<std::size_t, int> lengths;
  for (const std::uint32_t width : {1u, 2u, 3u, 8u}) {
    for (const EarlyStopping mode : {EarlyStopping::heuristic, EarlyStopping::immediate, EarlyStopping::never}) {
      for (const float penalty : {1.0f, 0.0f, 2.0f, -0.5f}) {
        for (const std::size_t stops : {0u, 1u, 3u}) {
          for (std::uint64_t seed = 1; seed <= 4; ++seed) {
            BeamSearchParams p{.beam_width = width,
                               .n = width,
                               .max_tokens = 9,
                               .length_penalty = penalty,
                               .early_stopping = mode,
                               .stop_token_ids = {}};
            for (std::size_t i = 0; i < stops; ++i) p.stop_token_ids.push_back(static_cast<TokenId>(3 + 7 * i));
            const auto expected = reference(p, 23, seed);
            const Run found = run(p, 23, seed);
            REQUIRE(found.hypotheses.size() == expected.size());
            for (std::size_t i = 0; i < expected.size(); ++i) {
              CHECK(found.hypotheses[i].tokens == expected[i].tokens);
              CHECK(found.hypotheses[i].score == doctest::Approx(expected[i].score).epsilon(1e-4));
              const bool stopped = std::ranges::count(p.stop_token_ids, expected[i].tokens.back()) > 0;
              CHECK(found.hypotheses[i].stopped == stopped);
            }
            ++lengths[found.steps];
          }
        }
      }
    }
  }
  CHECK(lengths.size() > 4);  // some stop early, some do not
}

TEST_CASE("a vocabulary smaller than the number of candidates") {
  const BeamSearchParams p{.beam_width = 8, .n = 8, .max_tokens = 4, .stop_token_ids = {0}};
  const auto expected = reference(p, 3, 5);
  const Run found = run(p, 3, 5);
  REQUIRE(found.hypotheses.size() == expected.size());
  for (std::size_t i = 0; i < expected.size(); ++i) CHECK(found.hypotheses[i].tokens == expected[i].tokens);
}

TEST_CASE("n best are returned, and a row without a usable logit is refused") {
  CHECK(run({.beam_width = 6, .n = 2, .max_tokens = 5, .stop_token_ids = {}}, 40, 9).hypotheses.size() == 2);
  const std::vector<float> nan{0.0f, std::nanf("")};
  sampling::Scratch scratch;
  CHECK_THROWS_AS(beam_candidates(nan, 2, scratch), Corrupt);
}

TEST_CASE("a search takes candidates of each running beam, and none once it has ended; a refusal changes nothing") {
  BeamSearch search({.beam_width = 2, .n = 2, .max_tokens = 2, .stop_token_ids = {}});
  const std::vector<sampling::BeamCandidate> list{{7, -0.5f}, {9, -1.0f}, {11, -3.0f}};
  const auto advance = [&](std::size_t beams) { return search.advance(std::vector(beams, list)); };
  CHECK_THROWS_AS(advance(2), InvalidArgument);
  CHECK(advance(1).size() == 2);
  CHECK_THROWS_AS(advance(3), InvalidArgument);
  CHECK(advance(2).empty());  // of the two that run
  REQUIRE(search.ended());
  CHECK_THROWS_AS(advance(0), InvalidArgument);
  CHECK(search.hypotheses().at(0).tokens == Tokens{7, 7});
}

TEST_CASE("of equal sums those of the first beam go on, by token") {
  BeamSearch search({.beam_width = 2, .n = 2, .max_tokens = 9, .stop_token_ids = {}});
  const std::vector<sampling::BeamCandidate> equal{{7, -1.0f}, {9, -1.0f}};
  for (std::size_t beams = 1; beams <= 2; ++beams) {
    const auto children = search.advance(std::vector(beams, equal));
    REQUIRE(children.size() == 2);
    for (std::size_t i = 0; i < 2; ++i) {
      CHECK(children[i].parent == 0);
      CHECK(children[i].token == equal[i].token);
    }
  }
}

// rule: sampling.beams-as-transformers
TEST_CASE("a search ends when the mode says so, by the hypotheses that it keeps") {
  using Lists = std::vector<std::vector<sampling::BeamCandidate>>;
  constexpr TokenId kStop = 1;
  const Lists first{{{kStop, -1.0f}, {7, -1.1f}, {8, -9.0f}}};  // one hypothesis of -1.0
  const auto after_first = [&](EarlyStopping mode, float penalty) {
    BeamSearch search({.beam_width = 2,
                       .n = 2,
                       .max_tokens = 10,
                       .length_penalty = penalty,
                       .early_stopping = mode,
                       .stop_token_ids = {kStop}});
    REQUIRE(search.advance(first).size() == 2);
    return search;
  };
  // A second hypothesis, -1.3, behind a beam of -1.2 that may still do better.
  const Lists second{{{5, -0.1f}, {kStop, -0.2f}}, {{6, -9.0f}}};
  const auto ends = [&](EarlyStopping mode, float penalty) {
    BeamSearch search = after_first(mode, penalty);
    return search.advance(second).empty();
  };
  CHECK(ends(EarlyStopping::immediate, 1.0f));
  CHECK_FALSE(ends(EarlyStopping::heuristic, 1.0f));
  CHECK_FALSE(ends(EarlyStopping::never, 1.0f));
  // The longer the worse: the most favourable length is what beams have now. -1.2 * 2 is above -1.3 * 2.
  CHECK_FALSE(ends(EarlyStopping::never, -1.0f));

  // A third one, -1.4 / 3, displaces -1.0. The best of those running can come to -7 / 10, which is below the -1.3 / 2
  // that is the worst now.
  BeamSearch search = after_first(EarlyStopping::never, 1.0f);
  REQUIRE(search.advance(second).size() == 2);
  CHECK(search.advance(Lists{{{kStop, -0.2f}, {4, -5.8f}}, {{3, -9.0f}}}).empty());
  const auto hypotheses = search.hypotheses();
  REQUIRE(hypotheses.size() == 2);
  CHECK(hypotheses[0].tokens == Tokens{7, 5, kStop});
  CHECK(hypotheses[1].tokens == Tokens{7, kStop});
}

/// Of this thread's processor time. That of a process with a limit (ulimit -t) moves by ticks only.
static double thread_seconds() {
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

TEST_CASE("a step's time grows with its candidates, at a width of 512 too") {
  std::vector<sampling::BeamCandidate> list;
  for (TokenId t = 0; t < 1024; ++t) list.push_back({t, -0.01f * static_cast<float>(t + 1)});
  const auto processor_time = [&](std::uint32_t width) {
    double least = std::numeric_limits<double>::max();
    for (int repeat = 0; repeat < 5; ++repeat) {
      BeamSearch search({.beam_width = width, .n = 1, .max_tokens = 6, .stop_token_ids = {2}});
      std::vector<std::vector<sampling::BeamCandidate>> lists(1, list);
      const std::size_t running = search.advance(lists).size();
      REQUIRE(running == width);
      lists.assign(running, list);
      const double start = thread_seconds();
      search.advance(lists);
      least = std::min(least, thread_seconds() - start);
    }
    return least;
  };
  // 8 times the candidates; were each compared with each, it would be 64. A busy machine's caches cost the larger one
  // more: it is measured again then.
  double few = 0.0, many = 0.0;
  for (int repeat = 0; repeat < 10 && many >= 30.0 * few; ++repeat) {
    few = processor_time(64);
    many = processor_time(512);
  }
  MESSAGE("512 beams x 1024 candidates: " << 1e3 * many << " ms; 64: " << 1e3 * few);
  CHECK(many < 30.0 * few);
}

TEST_CASE("parameters out of range are named") {
  const auto message = [](BeamSearchParams p) {
    try {
      validate(p, 10);
    } catch (const InvalidArgument& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  CHECK(message({}).empty());
  CHECK(message({.beam_width = 0, .stop_token_ids = {}}).find("beam_width = 0") != std::string::npos);
  CHECK(message({.beam_width = 2, .n = 3, .stop_token_ids = {}}).find("n = 3") != std::string::npos);
  CHECK(message({.max_tokens = 0, .stop_token_ids = {}}).find("max_tokens = 0") != std::string::npos);
  CHECK(message({.length_penalty = std::nanf(""), .stop_token_ids = {}}).find("length_penalty") != std::string::npos);
  CHECK(message({.stop_token_ids = {10}}).find("token 10") != std::string::npos);
}
