// Beam search in a whole engine: against a search that recomputes every beam from scratch, and bit for bit against
// itself under everything that may disturb it.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "device.hpp"
#include "pagedcore/error.hpp"

using namespace pagedcore;

namespace {

using Tokens = std::vector<TokenId>;

EngineConfig small(DType dtype = device::under_test().dtypes.front(), int threads = 1) {
  EngineConfig config = device::config(dtype, threads);
  config.kv.block_size = 4;
  config.kv.num_blocks = 400;
  config.scheduler.max_batched_tokens = 64;
  return config;
}

struct Result {
  std::vector<Tokens> tokens;
  std::vector<float> scores;
  std::vector<FinishReason> finishes;
  Tokens streamed;  // of sample 0, as it came
  bool operator==(const Result&) const = default;
};

std::map<std::uint64_t, Result> drain(Engine& engine) {
  std::map<std::uint64_t, Result> results;
  while (engine.busy()) {
    for (const EngineOutput& output : engine.wait(10.0)) {
      Result& result = results[raw(output.request)];
      if (output.sample >= result.tokens.size()) result.tokens.resize(output.sample + 1);
      Tokens& tokens = result.tokens[output.sample];
      tokens.insert(tokens.end(), output.tokens.begin(), output.tokens.end());
      if (output.sample == 0) result.streamed.insert(result.streamed.end(), output.tokens.begin(), output.tokens.end());
      if (output.finish == FinishReason::none) continue;
      result.scores.push_back(output.score);
      result.finishes.push_back(output.finish);
      CHECK(output.error.empty());
    }
  }
  return results;
}

EngineRequest search(Tokens prompt, std::uint32_t width, std::uint32_t max_tokens, bool stream = false) {
  EngineRequest request;
  request.prompt = std::move(prompt);
  request.beam = BeamSearchParams{.beam_width = width, .n = width, .max_tokens = max_tokens, .stop_token_ids = {}};
  request.stream = stream;
  return request;
}

/// Log-probabilities of the whole vocabulary behind `tokens`.
std::map<TokenId, double> distribution(Engine& engine, const Tokens& tokens) {
  EngineRequest request;
  request.prompt = tokens;
  request.sampling.max_tokens = 1;
  request.sampling.temperature = 0.0f;
  request.sampling.logprobs = engine.model().vocab_size;
  engine.submit(std::move(request));
  std::map<TokenId, double> all;
  while (engine.busy()) {
    for (const EngineOutput& output : engine.wait(10.0)) {
      for (const TokenLogprob& entry : output.logprobs.top(0)) all[entry.token] = double{entry.logprob};
    }
  }
  return all;
}

const Tokens kPrompt{5, 17, 3, 99, 42, 8, 8, 120, 64, 33, 7};

}  // namespace

TEST_CASE("hypotheses are those of a search that shares nothing") {
  tiny::TinyModel model = device::model();
  Engine engine(model.description, model.weights, small());
  for (const std::uint32_t width : {1u, 3u, 6u}) {
    struct Path {
      Tokens tokens;
      double sum = 0.0;
    };
    std::vector<Path> paths{{kPrompt}};
    for (int length = 0; length < 7; ++length) {
      std::vector<Path> next;
      for (const Path& path : paths) {
        for (const auto& [token, logprob] : distribution(engine, path.tokens)) {
          next.push_back({path.tokens, path.sum + logprob});
          next.back().tokens.push_back(token);
        }
      }
      std::ranges::stable_sort(next, [](const Path& a, const Path& b) { return a.sum > b.sum; });
      next.resize(width);
      paths = std::move(next);
    }
    engine.submit(search(kPrompt, width, 7));
    const auto results = drain(engine);
    const Result& found = results.begin()->second;
    REQUIRE(found.tokens.size() == width);
    for (std::size_t i = 0; i < width; ++i) {
      CHECK(found.tokens[i] ==
            Tokens(paths[i].tokens.begin() + static_cast<std::ptrdiff_t>(kPrompt.size()), paths[i].tokens.end()));
      CHECK(found.scores[i] == doctest::Approx(paths[i].sum / 7).epsilon(1e-5));
      CHECK(found.finishes[i] == FinishReason::length);
    }
  }
}

// rule: engine.same-request-same-bits
TEST_CASE("same search, same bits: alone, in a crowd, in chunks, preempted, streamed, on two threads") {
  const std::uint32_t tokens = device::under_test().tokens;
  for (const DType dtype : device::under_test().dtypes) {
    tiny::TinyModel model = device::model();
    Result expected;
    {
      Engine engine(model.description, model.weights, small(dtype));
      engine.submit(search(kPrompt, 5, tokens));
      expected = drain(engine).begin()->second;
      CHECK(engine.stats().at("forks") > 4);
      CHECK(engine.stats().at("block_copies") > 0);
    }
    struct Disturbance {
      const char* name;
      std::uint32_t batched, period, blocks;
      int threads, neighbours;
      bool caching, stream;
    };
    for (const Disturbance& d :
         {Disturbance{"neighbours", 64, 0, 400, 1, 6, true, false}, Disturbance{"chunks", 7, 0, 400, 1, 0, true, true},
          Disturbance{"preempted", 64, 3, 400, 1, 0, true, true},
          Disturbance{"preempted, no cache", 16, 2, 400, 1, 3, false, true},
          Disturbance{"few blocks", 32, 0, 60, 1, 6, true, false},
          Disturbance{"threads", 64, 5, 120, 2, 4, true, false}}) {
      if (d.period == 0 && !device::under_test().every_disturbance) continue;
      CAPTURE(d.name);
      EngineConfig config = small(dtype, d.threads);
      config.scheduler.max_batched_tokens = d.batched;
      config.kv.num_blocks = d.blocks;
      config.kv.enable_prefix_caching = d.caching;
      Engine engine(model.description, model.weights, config);
      engine.force_preemption(d.period);
      for (int i = 0; i < d.neighbours; ++i) {
        if (i % 2 == 0) {
          engine.submit(search({i, 1, 2, 3, i}, 2 + static_cast<std::uint32_t>(i) % 3, tokens));
        } else {
          EngineRequest request;
          request.prompt = kPrompt;
          request.sampling.n = 3;
          request.sampling.max_tokens = tokens;
          request.sampling.seed = 5;
          engine.submit(std::move(request));
        }
      }
      const RequestId id = engine.submit(search(kPrompt, 5, tokens, d.stream));
      const auto results = drain(engine);
      CHECK(results.at(raw(id)) == expected);
      if (d.period > 0) CHECK(engine.stats().at("preemptions_recompute") > 0);
      CHECK(engine.stats().at("blocks_used") == 0);
    }
  }
}

TEST_CASE("stop tokens end hypotheses, and the search goes on") {
  tiny::TinyModel model = device::model();
  Engine engine(model.description, model.weights, small());
  engine.submit(search(kPrompt, 4, 12));
  const Result plain = drain(engine).begin()->second;
  EngineRequest request = search(kPrompt, 4, 12, true);
  for (const Tokens& tokens : plain.tokens) request.beam->stop_token_ids.push_back(tokens[2]);
  request.beam->length_penalty = 0.0f;  // sums are compared, so that what ends early is ahead
  request.beam->n = 2;
  request.beam->early_stopping = EarlyStopping::immediate;
  engine.submit(std::move(request));
  const Result found = drain(engine).begin()->second;
  CHECK(found.tokens.size() == 2);
  CHECK(std::ranges::count(found.finishes, FinishReason::stop) > 0);
  CHECK(found.scores[0] >= found.scores[1]);
}

TEST_CASE("an abort in the middle of a search gives every block back") {
  tiny::TinyModel model = device::model();
  Engine engine(model.description, model.weights, small());
  for (int round = 0; round < 10; ++round) {
    const RequestId id = engine.submit(search(kPrompt, 7, 180, true));
    FinishReason last = FinishReason::none;
    const auto wait = [&](double seconds) {  // a search may end before the abort
      for (const EngineOutput& output : engine.wait(seconds)) {
        if (output.last) last = output.finish;
      }
    };
    for (int i = 0; i < round; ++i) wait(0.01);
    engine.abort(id);
    while (engine.busy()) wait(10.0);
    CHECK((last == FinishReason::abort || last == FinishReason::length));
  }
  CHECK(engine.stats().at("blocks_used") == 0);
}

TEST_CASE("a search whose logits are unusable fails alone") {
  tiny::TinyModel model = device::model();
  model.values("lm_head.weight")[64 * 3] = std::nanf("");
  Engine engine(model.description, model.weights, small());
  engine.submit(search(kPrompt, 3, 5));
  std::string error;
  while (engine.busy()) {
    for (const EngineOutput& output : engine.wait(10.0)) {
      CHECK(output.finish == FinishReason::error);
      error = output.error;
    }
  }
  CHECK(error.find("sampling failed") == 0);
  CHECK(engine.stats().at("requests_failed") == 1);
  CHECK(engine.stats().at("blocks_used") == 0);
}

TEST_CASE("a search that cannot fit is refused with the numbers") {
  tiny::TinyModel model = device::model();
  Engine engine(model.description, model.weights, small());
  CHECK_THROWS_WITH_AS(engine.submit(search(kPrompt, 65, 4)), doctest::Contains("a step has at most 64"),
                       InvalidArgument);
  CHECK_THROWS_WITH_AS(engine.submit(search(kPrompt, 60, 100)), doctest::Contains("KV blocks"), InvalidArgument);
  CHECK_THROWS_WITH_AS(engine.submit(search(kPrompt, 0, 4)), doctest::Contains("beam_width = 0"), InvalidArgument);
}
