// Embeddings beside requests that generate: the same bits however they are computed. What the numbers are is compared
// with transformers in tests/python/test_embeddings.py.
#include <doctest/doctest.h>

#include <cmath>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "device.hpp"
#include "fake_executor.hpp"
#include "same_bits.hpp"

using tiny::TinyModel;
using namespace pagedcore;

namespace {

EngineRequest embed(std::size_t length, std::uint32_t seed, Pooling pooling = Pooling::automatic) {
  std::mt19937 random(seed);
  EngineRequest request;
  for (std::size_t i = 0; i < length; ++i) request.prompt.push_back(static_cast<TokenId>(random() % 151));
  request.embedding.emplace().pooling = pooling;
  return request;
}

std::vector<EngineRequest> requests(const std::vector<Pooling>& poolings) {
  std::vector<EngineRequest> list;
  for (const Pooling pooling : poolings)
    for (const std::size_t length : {1, 16, 17, 40}) list.push_back(embed(length, 5, pooling));
  return list;
}

/// By the number of the request. Every one ends without an error.
std::map<std::uint64_t, std::vector<float>> run(Engine& engine, const std::vector<EngineRequest>& list) {
  std::map<std::uint64_t, std::size_t> places;
  const std::vector<RequestId> ids = engine.submit_all(list);
  for (std::size_t i = 0; i < ids.size(); ++i) places[raw(ids[i])] = i;
  std::map<std::uint64_t, std::vector<float>> found;
  while (engine.busy()) {
    for (EngineOutput& output : engine.wait(1.0)) {
      CHECK(output.error == "");
      if (!output.embedding.empty()) found[places.at(raw(output.request))] = std::move(output.embedding);
    }
  }
  return found;
}

EngineConfig config() {
  EngineConfig config = device::config();
  config.kv.num_blocks = 300;
  return config;
}

/// A model whose rows see those behind them: the even layers within a window.
TinyModel bidirectional() {
  TinyModel model = device::model();
  model.description.attention.bidirectional = true;
  model.description.attention.windows = {5, 0};
  model.description.head = false;
  model.description.embedding.pooling = Pooling::cls;
  return model;
}

void check_same(const TinyModel& model, const std::vector<Pooling>& poolings, std::uint32_t max_batched_tokens) {
  const auto list = requests(poolings);
  std::map<std::uint64_t, std::vector<float>> alone;
  {
    Engine engine(model.description, model.weights, config());
    for (std::size_t i = 0; i < list.size(); ++i) alone[i] = run(engine, {list[i]}).at(0);
  }
  EngineConfig crowded = config();
  crowded.scheduler.max_batched_tokens = max_batched_tokens;
  Engine engine(model.description, model.weights, crowded);
  engine.force_preemption(3);
  std::vector<EngineRequest> all = list;
  for (std::uint32_t i = 0; model.description.head && i < 2; ++i)
    all.push_back(same_bits::request(20, 50 + i, device::under_test().tokens, 3));
  for (int round = 0; round < 2; ++round) CHECK(run(engine, all) == alone);  // the second with what is cached
}

}  // namespace

// rule: engine.embeddings-same-bits
TEST_CASE("an embedding has the same bits in chunks, beside requests that generate, cached and preempted") {
  check_same(device::model(), {Pooling::last, Pooling::mean}, 7);
}

// rule: engine.embeddings-same-bits
TEST_CASE("so has one of a model whose rows see those behind them, which leaves no block behind") {
  check_same(bidirectional(), {Pooling::last, Pooling::mean, Pooling::cls}, 45);
  const TinyModel model = bidirectional();
  Engine engine(model.description, model.weights, config());
  run(engine, requests({Pooling::mean}));
  CHECK(engine.stats().at("blocks_free") == 300.0);
  CHECK_THROWS_AS(engine.submit(same_bits::request(4, 1, 4, 3)), InvalidArgument);
  CHECK_THROWS_AS(engine.register_prefix("p", {1, 2}), InvalidArgument);
}

TEST_CASE("an embedding is cut, then scaled to length 1; auto is what the model was trained with") {
  const TinyModel model = bidirectional();
  Engine engine(model.description, model.weights, config());
  std::vector<EngineRequest> list(4, embed(17, 5));
  list[1].embedding->pooling = Pooling::cls;
  list[2].embedding->normalize = false;
  list[3].embedding->dimensions = 9;
  const auto found = run(engine, list);
  CHECK(found.at(0) == found.at(1));
  const auto norm = [](const std::vector<float>& v) {
    double squares = 0.0;
    for (const float x : v) squares += double{x} * x;
    return std::sqrt(squares);
  };
  CHECK(norm(found.at(0)) == doctest::Approx(1.0).epsilon(1e-6));
  CHECK(found.at(3).size() == 9);
  std::vector<float> first(found.at(2).begin(), found.at(2).begin() + 9);
  for (std::size_t i = 0; i < 9; ++i)
    CHECK(found.at(3)[i] == doctest::Approx(double{first[i]} / norm(first)).epsilon(1e-6));
}

TEST_CASE("what a model cannot embed is refused") {
  const TinyModel model = device::model();
  Engine engine(model.description, model.weights, config());
  CHECK_THROWS_AS(engine.submit(embed(4, 1, Pooling::cls)), InvalidArgument);
  CHECK_THROWS_AS(engine.submit(embed(257, 1)), InvalidArgument);
  EngineRequest wide = embed(4, 1);
  wide.embedding->dimensions = 65;
  CHECK_THROWS_WITH_AS(engine.submit(wide),
                       "dimensions = 65, but an embedding of this model has 64; ask for at most that many, or leave it "
                       "out",
                       InvalidArgument);
  EngineRequest both = embed(4, 1);
  both.beam.emplace();
  CHECK_THROWS_AS(engine.submit(both), InvalidArgument);
  CHECK(run(engine, {embed(4, 1)}).size() == 1);
}
