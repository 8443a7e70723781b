// Requests that are held to a form by a matcher of the caller's: against requests of one token each, which are told
// the allowed tokens by hand, and against themselves under everything that may disturb them.
#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <string>

#include "device.hpp"
#include "pagedcore/error.hpp"
#include "same_bits.hpp"

using namespace pagedcore;

namespace {

using Tokens = std::vector<TokenId>;

constexpr std::int32_t kVocab = 151;
constexpr TokenId kEnd = 150;
std::atomic<int> living{0};

/// About every sixth token may follow a place, which is a hash of all tokens so far; the end may come behind some of
/// them, and nothing else behind `most` tokens.
struct Place {
  std::uint64_t hash = 99;
  std::uint32_t length = 0;
  std::uint32_t most = 12;
  std::uint32_t fails_at = ~0u;  // length
  bool refuses = false;          // tokens that it had allowed

  bool allows(TokenId token) const {
    if (token == kEnd) return length >= most || (length >= 3 && hash % 5 == 0);
    return length < most && (hash >> 7 ^ static_cast<std::uint64_t>(token) * 2654435761u) % 6 == 0;
  }
  void consume(TokenId token) {
    hash = (hash ^ static_cast<std::uint64_t>(token + 1)) * 1099511628211ull;
    ++length;
  }
  Tokens allowed() const {
    Tokens tokens;
    for (TokenId t = 0; t < kVocab; ++t)
      if (allows(t)) tokens.push_back(t);
    return tokens;
  }
};

/// What is counted.
struct Counted {
  explicit Counted(const Place& at) : place(at) { ++living; }
  Counted(const Counted&) = delete;
  Counted& operator=(const Counted&) = delete;
  ~Counted() { --living; }
  Place place;
};

ConstraintTable table() {
  ConstraintTable t;
  t.compute_mask = [](void* matcher, std::uint32_t* mask, std::size_t bytes) -> std::int32_t {
    const Place* place = &static_cast<const Counted*>(matcher)->place;
    if (place->length >= place->fails_at || bytes != (kVocab + 31) / 32 * 4) return -1;
    for (const TokenId token : place->allowed()) mask[token / 32] |= 1u << token % 32;
    mask[kVocab / 32] |= 1u << 30;  // a token that the model does not have
    return 0;
  };
  t.consume_token = [](void* matcher, std::uint32_t token) -> std::int32_t {
    Place* place = &static_cast<Counted*>(matcher)->place;
    if (place->refuses || !place->allows(static_cast<TokenId>(token))) return -1;
    place->consume(static_cast<TokenId>(token));
    return 0;
  };
  t.error = [](void*) { return "the place is lost"; };
  t.clone = [](const void* matcher) -> void* { return new Counted(static_cast<const Counted*>(matcher)->place); };
  t.free = [](void* matcher) { delete static_cast<Counted*>(matcher); };
  return t;
}

std::shared_ptr<const Constraint> constraint(const Place& place = {}, std::size_t bytes = 0) {
  return std::make_shared<Constraint>(table(), new Counted(place), bytes);
}

EngineConfig small(DType dtype = device::under_test().dtypes.front(), int threads = 1) {
  EngineConfig config = device::config(dtype, threads);
  config.kv.block_size = 4;
  config.kv.num_blocks = 400;
  config.scheduler.max_batched_tokens = 64;
  return config;
}

EngineRequest request(std::uint32_t seed, std::uint32_t max_tokens = 20) {
  EngineRequest r = same_bits::request(3 + seed, seed, max_tokens, 2);
  r.sampling.stop_token_ids = {kEnd};
  r.constraint = constraint();
  return r;
}

/// What a sample must be: its tokens one at a time, each a request of its own that is told what may come.
Tokens by_hand(Engine& engine, const EngineRequest& whole, std::uint32_t sample, Place place = {}) {
  Tokens output;
  while (output.size() < whole.sampling.max_tokens && (output.empty() || output.back() != kEnd)) {
    EngineRequest one = whole;
    one.constraint = nullptr;
    one.prompt.insert(one.prompt.end(), output.begin(), output.end());
    one.sampling.n = sample + 1;  // whose number is part of the draw's key
    one.sampling.max_tokens = 1;
    one.sampling.min_tokens = 0;
    one.sampling.allowed_token_ids = place.allowed();
    if (output.size() < whole.sampling.min_tokens && one.sampling.allowed_token_ids.size() > 1)
      std::erase(one.sampling.allowed_token_ids, kEnd);
    const RequestId id = engine.submit(one);
    output.push_back(fake::drain(engine).at(id, sample).tokens.at(0));
    place.consume(output.back());
  }
  return output;
}

}  // namespace

// rule: sampling.matcher-in-step
TEST_CASE("a constrained sample draws from what its matcher allows, and ends where that lets it") {
  const tiny::TinyModel model = device::model();
  Engine engine(model.description, model.weights, small());
  for (std::uint32_t seed = 0; seed < 3; ++seed) {
    EngineRequest r = request(seed);
    r.sampling.n = 2;
    if (seed == 0) r.sampling.temperature = 0.0f;
    if (seed == 1) r.sampling.top_p = 0.8f;
    if (seed == 2) r.sampling.min_tokens = 14;  // more than the matcher has: the end comes early all the same
    const RequestId id = engine.submit(r);
    const fake::Collection all = fake::drain(engine);
    for (std::uint32_t sample = 0; sample < 2; ++sample) {
      CAPTURE(seed);
      const fake::Collected& got = all.at(id, sample);
      CHECK(got.error == "");
      CHECK(got.finish == FinishReason::stop);
      CHECK(got.tokens == by_hand(engine, r, sample));
      if (seed == 2) CHECK(got.tokens.size() == 13);
      CHECK(got.logprobs.size() == got.tokens.size());
    }
  }
  CHECK(engine.stats().at("blocks_used") == 0);
}

TEST_CASE("log-probabilities are the model's own, of all tokens") {
  const tiny::TinyModel model = device::model();
  Engine engine(model.description, model.weights, small());
  EngineRequest r = request(1);
  const RequestId id = engine.submit(r);
  const fake::Collected got = fake::drain(engine).at(id);
  EngineRequest scored = r;
  scored.constraint = nullptr;
  scored.prompt.insert(scored.prompt.end(), got.tokens.begin(), got.tokens.end());
  scored.sampling = SamplingParams{};
  scored.sampling.max_tokens = 0;
  scored.sampling.prompt_logprobs = 2;
  engine.submit(scored);
  LogprobTable table;
  while (engine.busy())
    for (EngineOutput& output : engine.wait(10.0)) table = std::move(output.prompt_logprobs);
  for (std::size_t i = 0; i < got.tokens.size(); ++i) {
    const PositionLogprobs want = table[r.prompt.size() - 1 + i];
    CHECK(got.logprobs[i].chosen.token == want.chosen.token);
    CHECK(got.logprobs[i].chosen.logprob == want.chosen.logprob);
    CHECK(got.logprobs[i].chosen.rank == want.chosen.rank);
    CHECK(got.logprobs[i].top[0].token == want.top[0].token);
  }
}

// rule: engine.same-request-same-bits
TEST_CASE("a constrained request has the same bits in a crowd, in chunks, preempted and on two threads") {
  const tiny::TinyModel model = device::model();
  const auto run = [&](const EngineConfig& config, std::uint32_t period, PreemptionMode mode, std::uint32_t strangers) {
    Engine engine(model.description, model.weights, config);
    engine.force_preemption(period, mode);
    std::vector<RequestId> ids;
    for (std::uint32_t i = 0; i < std::max(strangers, 3u); ++i) {
      if (i < strangers) engine.submit(same_bits::request(5 + i, 700 + i, 9, 0));
      EngineRequest r = request(i);
      r.sampling.n = 1 + i;
      if (i < 3) ids.push_back(engine.submit(r));
    }
    const fake::Collection all = fake::drain(engine);
    same_bits::Bits bits;
    for (std::uint32_t i = 0; i < 3; ++i)
      for (std::uint32_t sample = 0; sample <= i; ++sample) bits.push_back(same_bits::bits(all.at(ids[i], sample)));
    if (period > 0)
      CHECK(engine.stats().at(mode == PreemptionMode::swap ? "preemptions_swap" : "preemptions_recompute") > 0);
    return bits;
  };
  EngineConfig swapping = small();
  swapping.swap.swap_space = 1 << 22;
  EngineConfig chunks = small();
  chunks.scheduler.max_batched_tokens = 5;
  const same_bits::Bits alone = run(small(), 0, PreemptionMode::recompute, 0);
  CHECK(run(chunks, 0, PreemptionMode::recompute, 4) == alone);
  CHECK(run(small(device::under_test().dtypes.front(), 2), 3, PreemptionMode::recompute, 4) == alone);
  CHECK(run(swapping, 3, PreemptionMode::swap, 0) == alone);
}

TEST_CASE("a neighbour's bits do not change beside constrained requests") {
  const tiny::TinyModel model = device::model();
  const std::vector<EngineRequest> observed{same_bits::request(9, 5, 12, 1)};
  Engine engine(model.description, model.weights, small());
  const same_bits::Bits alone = same_bits::run(engine, observed);
  for (std::uint32_t seed = 0; seed < 4; ++seed) engine.submit(request(seed));
  CHECK(same_bits::run(engine, observed) == alone);
}

TEST_CASE("beams go on with allowed tokens only: those of a search that shares nothing") {
  const tiny::TinyModel model = device::model();
  Engine engine(model.description, model.weights, small());
  const Tokens prompt{5, 17, 3, 99, 42};
  constexpr std::uint32_t kWidth = 3, kLength = 5;
  struct Path {
    Tokens tokens;
    double sum = 0.0;
    Place place;
  };
  Place start;
  start.most = 100;
  std::vector<Path> paths{{prompt, 0.0, start}};
  for (std::uint32_t length = 0; length < kLength; ++length) {
    std::vector<Path> next;
    for (const Path& path : paths) {
      EngineRequest one;
      one.prompt = path.tokens;
      one.sampling.max_tokens = 1;
      one.sampling.temperature = 0.0f;
      one.sampling.logprobs = -1;
      const RequestId id = engine.submit(one);
      const fake::Collection all = fake::drain(engine);
      for (const TokenLogprob& l : all.at(id).logprobs.at(0).top) {
        if (!path.place.allows(l.token) || l.token == kEnd) continue;
        next.push_back(path);
        next.back().tokens.push_back(l.token);
        next.back().sum += double{l.logprob};
        next.back().place.consume(l.token);
      }
    }
    std::ranges::sort(next, [](const Path& a, const Path& b) { return a.sum > b.sum; });
    next.resize(kWidth);
    paths = std::move(next);
  }
  for (const std::uint32_t period : {0u, 2u}) {
    engine.force_preemption(period);
    EngineRequest r;
    r.prompt = prompt;
    r.beam = BeamSearchParams{.beam_width = kWidth, .n = kWidth, .max_tokens = kLength, .stop_token_ids = {}};
    r.constraint = constraint(start);
    const RequestId id = engine.submit(r);
    const fake::Collection all = fake::drain(engine);
    for (std::uint32_t i = 0; i < kWidth; ++i) {
      const Tokens& whole = paths[i].tokens;
      CHECK(all.at(id, i).error == "");
      CHECK(all.at(id, i).tokens == Tokens(whole.begin() + static_cast<std::ptrdiff_t>(prompt.size()), whole.end()));
    }
  }
}

// rule: engine.request-fails-alone
// rule: engine.matcher-of-its-own
TEST_CASE("a matcher that fails ends its own request, with its reason") {
  const tiny::TinyModel model = device::model();
  const std::vector<EngineRequest> observed{same_bits::request(9, 5, 12, 1)};
  Engine engine(model.description, model.weights, small());
  const same_bits::Bits alone = same_bits::run(engine, observed);
  Place fails, refuses, empty;
  fails.fails_at = 2;
  refuses.refuses = true;
  empty.most = 0;
  std::vector<RequestId> ids;
  for (const Place& place : {fails, refuses, empty}) {
    EngineRequest r = request(2);
    r.constraint = constraint(place);
    r.sampling.banned_tokens = {kEnd};
    ids.push_back(engine.submit(r));
  }
  const RequestId neighbour = engine.submit(observed[0]);
  const fake::Collection all = fake::drain(engine);
  CHECK(same_bits::bits(all.at(neighbour)) == alone[0]);
  for (const RequestId id : ids) CHECK(all.at(id).finish == FinishReason::error);
  CHECK(all.at(ids[0]).error ==
        "the structured output's matcher could not say which tokens may come next: the place is lost");
  CHECK(all.at(ids[1]).error ==
        "the structured output's matcher refused a token that it had allowed: the place is lost");
  CHECK(all.at(ids[2]).error.find("what a constraint allows") != std::string::npos);
  CHECK(same_bits::run(engine, observed) == alone);
}

TEST_CASE("matchers go with their requests, whatever ends those") {
  const int before = living;
  {
    const tiny::TinyModel model = device::model();
    Engine engine(model.description, model.weights, small());
    const std::shared_ptr<const Constraint> shared = constraint();
    std::vector<RequestId> ids;
    for (std::uint32_t i = 0; i < 6; ++i) {
      EngineRequest r = request(i, 200);
      r.constraint = shared;
      r.sampling.n = 3;
      r.sampling.banned_tokens = {kEnd};
      ids.push_back(engine.submit(r));
    }
    engine.abort(ids[1]);
    engine.abort(ids[4]);
    fake::drain(engine);
    CHECK(living == before + 1);  // the shared one
    engine.submit(request(1, 200));
  }
  CHECK(living == before);
}

TEST_CASE("what a constraint may hold counts, and one without functions is refused") {
  const tiny::TinyModel model = device::model();
  EngineConfig config = small();
  config.request_memory = 1 << 20;
  Engine engine(model.description, model.weights, config);
  EngineRequest r = request(1);
  r.constraint = constraint({}, 1 << 19);
  CHECK_NOTHROW(engine.validate(r));
  r.sampling.n = 3;
  CHECK_THROWS_AS(engine.submit(r), InvalidArgument);
  CHECK_THROWS_AS(Constraint(table(), nullptr), InvalidArgument);
  Place place;
  CHECK_THROWS_AS(Constraint(ConstraintTable{}, &place), InvalidArgument);
}
