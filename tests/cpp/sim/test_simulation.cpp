// Service on a virtual clock: prices, batches, beams, and what comes of bad input.
#include <doctest/doctest.h>

#include <limits>
#include <vector>

#include "pagedcore/error.hpp"
#include "pagedcore/simulation.hpp"
#include "sim/request_batcher.hpp"

using namespace pagedcore;

namespace {

SimulationConfig config_of(std::uint32_t blocks = 64) {
  SimulationConfig config;
  config.cache.num_blocks = blocks;
  config.cache.enable_prefix_caching = false;
  config.cost.step = 1.0;
  return config;
}

SimulatedRequest request_of(double arrival, std::uint32_t prompt, std::uint32_t output, std::uint64_t content = 0) {
  SimulatedRequest request;
  request.arrival = arrival;
  request.prompt = {{content, prompt}};
  request.output = output;
  return request;
}

Simulation served(const SimulationConfig& config, std::vector<SimulatedRequest> requests) {
  Simulation simulation(config, std::move(requests));
  while (simulation.run(100)) REQUIRE(simulation.report().steps < 1000000);
  simulation.scheduler().check();
  return simulation;
}

}  // namespace

TEST_CASE("the price of a step is the sum of its terms") {
  StepPlan plan;
  plan.sequences.resize(2);
  plan.sequences[0].num_rows = 4;  // a chunk behind 6 tokens
  plan.sequences[0].first_position = 6;
  plan.sequences[1].num_rows = 1;  // a decode of the tenth token
  plan.sequences[1].first_position = 9;
  plan.sequences[1].num_samples = 1;
  plan.copies.resize(2);
  plan.swap_outs.resize(3);
  CostModel cost;
  cost.step = 1000.0;
  cost.weights = 4.0;
  CHECK(step_seconds(cost, plan) == 1004.0);
  cost.row = 1.0;
  CHECK(step_seconds(cost, plan) == 1005.0);
  cost.pair = 10.0;  // 4 x 6 + 1 + 2 + 3 + 4 and 10
  CHECK(step_seconds(cost, plan) == 1005.0 + 440.0);
  cost.context_token = 1e4;  // 6 and 10
  CHECK(step_seconds(cost, plan) == 1445.0 + 16e4);
  cost.sample = 0.5;
  cost.copy_block = 0.25;
  cost.swap_out_block = 1e6;
  CHECK(step_seconds(cost, plan) == 1445.0 + 16e4 + 0.5 + 0.5 + 3e6);
  plan.sequences.clear();
  CHECK(step_seconds(cost, plan) == 0.5 + 3e6);
}

// rule: sim.steps-follow-one-another
TEST_CASE("a request alone takes a step for its prompt and one for every further token") {
  Simulation simulation = served(config_of(), {request_of(2.5, 20, 5), request_of(100.0, 7, 1)});
  CHECK(simulation.first_token() == std::vector<double>{3.5, 101.0});
  CHECK(simulation.finish() == std::vector<double>{7.5, 101.0});
  CHECK(simulation.report().steps == 6);
  CHECK(simulation.report().finished == 2);
  CHECK(simulation.report().scheduler.tokens_computed == 24 + 7);
}

// rule: sim.averages-by-time
TEST_CASE("averages are over the window, by time") {
  SimulationConfig config = config_of(10);
  config.window_begin = 1.0;
  config.window_end = 3.0;
  const SimulationReport report = served(config, {request_of(0.0, 16, 10)}).report();
  CHECK(report.seconds == 2.0);
  CHECK(report.requests == 1.0);
  CHECK(report.token_states == doctest::Approx((17 + 18) / 2.0 / 160.0));  // during the second and the third step
  CHECK(report.allocated == doctest::Approx(2 * 16 / 160.0));
  CHECK(report.tokens == 1.0);
}

// rule: sim.beams-have-ancestors
TEST_CASE("samples share their prompt, beams what their ancestry has in common") {
  SimulationConfig config = config_of(512);
  SimulatedRequest samples = request_of(0.0, 160, 32);
  samples.num_samples = 4;
  const SimulationReport parallel = served(config, {samples}).report();
  CHECK(parallel.sharing > 2.0);
  SimulatedRequest beams = request_of(0.0, 160, 32);
  beams.beam_width = 4;
  const SimulationReport apart = served(config, {beams}).report();
  CHECK(apart.sharing == doctest::Approx(parallel.sharing).epsilon(0.05));  // without mixing, as samples
  config.beam_mixing = 0.5;
  const SimulationReport mixed = served(config, {beams}).report();
  CHECK(mixed.sharing > apart.sharing + 0.1);
  CHECK(mixed.finished == 1);
  CHECK(mixed.scheduler.forks > 32);
}

// rule: sim.fork-is-priced
TEST_CASE("a fork without paging copies what is filled, or all that was set aside") {
  SimulationConfig config = config_of();
  config.cache.allocation = AllocationPolicy::max;
  config.cache.max_reservation = 128;  // 8 blocks of 16
  config.cost.copy_block = 0.01;
  SimulatedRequest request = request_of(0.0, 20, 10);
  request.num_samples = 3;  // two forks of two blocks each
  CHECK(served(config, {request}).report().now == doctest::Approx(10.0 + 2 * 2 * 0.01));
  config.copy_reservations = true;
  CHECK(served(config, {request}).report().now == doctest::Approx(10.0 + 2 * 8 * 0.01));
  config.cache.allocation = AllocationPolicy::paged;  // sets nothing aside: the last block is copied
  CHECK(served(config, {request}).report().now == doctest::Approx(10.0 + 2 * 0.01));
}

TEST_CASE("a request-level batch is padded to its longest prompt and output, and ends as one") {
  std::vector<SimulatedRequest> requests{request_of(0.0, 10, 4), request_of(0.0, 30, 2), request_of(0.0, 5, 9),
                                         request_of(0.0, 5, 5)};
  const sim::Batch batch = sim::next_batch(requests, 3, 2040);
  CHECK(batch.size == 3);
  CHECK(batch.prompt == 30);
  CHECK(batch.output == 9);
  CHECK(sim::next_batch(requests, 9, 38).size == 2);
  CHECK(sim::next_batch(requests, 9, 1).size == 1);
  requests[1].num_samples = 2;
  CHECK(sim::next_batch(requests, 9, 2040).size == 1);
  requests[1].num_samples = 1;

  SimulationConfig config = config_of(512);
  config.batch_requests = 3;
  config.cost.row = 1.0;  // three rows of 30, then eight steps of three
  Simulation simulation = served(config, requests);
  CHECK(simulation.finish() == std::vector<double>{123.0, 123.0, 123.0, 123.0 + 6.0 + 8.0});
}

// rule: sim.same-input-same-result
TEST_CASE("the same service twice is the same to the bit") {
  SimulationConfig config = config_of(40);
  config.cost.context_token = 0.01;
  std::vector<SimulatedRequest> requests;
  for (std::uint32_t i = 0; i < 60; ++i) requests.push_back(request_of(i * 0.7, 5 + i * 7 % 90, 3 + i * 5 % 60, i));
  const Simulation one = served(config, requests), two = served(config, requests);
  CHECK(one.finish() == two.finish());
  CHECK(one.report().scheduler.preemptions_recompute > 0);
  CHECK(one.last_plan() == two.last_plan());
}

TEST_CASE("equal contents are found in the prefix cache") {
  SimulationConfig config = config_of(512);
  config.cache.enable_prefix_caching = true;
  SimulatedRequest first = request_of(0.0, 64, 3, 1), second = first;
  second.arrival = 50.0;
  second.prompt.push_back({2, 10});
  const Simulation simulation = served(config, {first, second});
  CHECK(simulation.report().scheduler.prefix_hit_tokens == 64);
}

// rule: sim.impossible-is-refused
TEST_CASE("bad input is refused and names the request") {
  const SimulationConfig config = config_of();
  CHECK_THROWS_WITH_AS(Simulation(config, {request_of(5.0, 3, 1), request_of(4.0, 3, 1)}),
                       doctest::Contains("request 1 arrives at 4 s, after one at 5"), InvalidArgument);
  CHECK_THROWS_AS(Simulation(config, {request_of(-1.0, 3, 1)}), InvalidArgument);
  CHECK_THROWS_AS(Simulation(config, {request_of(std::numeric_limits<double>::quiet_NaN(), 3, 1)}), InvalidArgument);
  CHECK_THROWS_AS(Simulation(config, {request_of(0.0, 3, 0)}), InvalidArgument);
  CHECK_THROWS_AS(Simulation(config, {request_of(0.0, 0, 3)}), InvalidArgument);
  CHECK_THROWS_AS(Simulation(config, {request_of(0.0, 1u << 30, 3)}), InvalidArgument);
  CHECK_THROWS_WITH_AS(Simulation(config, {request_of(0.0, 3, 1), request_of(0.0, 64 * 16, 2)}),
                       doctest::Contains("request 2"), InvalidArgument);
  SimulationConfig free = config;
  free.cost.step = 0.0;
  CHECK_THROWS_AS(Simulation(free, {}), InvalidArgument);
  free.cost.step = -1.0;
  CHECK_THROWS_AS(Simulation(free, {}), InvalidArgument);
  SimulationConfig mixing = config;
  mixing.beam_mixing = 1.5;
  CHECK_THROWS_AS(Simulation(mixing, {}), InvalidArgument);
}

TEST_CASE("requests that are dealt out one by one come to the same end as those that were there at the beginning") {
  const SimulationConfig config = config_of();
  std::vector<SimulatedRequest> requests;
  for (std::uint32_t i = 0; i < 12; ++i) requests.push_back(request_of(0.75 * i, 20 + 7 * i % 40, 1 + i % 5, i + 1));
  const Simulation whole = served(config, requests);

  Simulation dealt(config, {});
  std::vector<std::size_t> ended;
  for (std::size_t i = 0; i < requests.size(); ++i) {
    dealt.run_until(requests[i].arrival);  // may end later: in the middle of a step it does not stop
    CHECK(dealt.report().now >= requests[i].arrival);
    CHECK(dealt.add(requests[i]) == i);
    for (const std::size_t index : dealt.take_ended()) ended.push_back(index);
  }
  dealt.run_until(100.0);
  CHECK(dealt.report().now == 100.0);  // idle, the clock goes on
  for (const std::size_t index : dealt.take_ended()) ended.push_back(index);
  CHECK(dealt.first_token() == whole.first_token());
  CHECK(dealt.finish() == whole.finish());
  CHECK(ended.size() == requests.size());
  CHECK(dealt.take_ended().empty());
  CHECK(dealt.snapshot({}).requests.empty());

  CHECK_THROWS_AS(dealt.add(request_of(0.0, 4, 1)), InvalidArgument);       // before the last one
  CHECK_THROWS_AS(dealt.add(request_of(200.0, 4000, 1)), InvalidArgument);  // could never be served
  CHECK_THROWS_AS(dealt.add(request_of(std::numeric_limits<double>::infinity(), 4, 1)), InvalidArgument);
  CHECK(dealt.add(request_of(9.0, 4, 1)) == requests.size());  // came while a step ran
  dealt.run_until(101.0);
  CHECK(dealt.finish().back() == doctest::Approx(101.0));
}

TEST_CASE("a simulation tells the news of its prefix cache, and who waits") {
  SimulationConfig config = config_of();
  config.cache.enable_prefix_caching = true;
  config.cache.max_events = 1000;
  Simulation simulation(config, {});
  simulation.add(request_of(0.0, 40, 2, 7));
  simulation.run_until(0.5);
  const EngineSnapshot picture = simulation.snapshot({});
  REQUIRE(picture.requests.size() == 1);
  CHECK(picture.requests[0].prompt_tokens == 40);
  simulation.run_until(10.0);
  const std::vector<CacheEvent> events = simulation.take_events();
  REQUIRE(events.size() >= 2);
  CHECK(events[0].kind == CacheEventKind::stored);
  const std::vector<TokenId> tokens = simulated_tokens({{7, 40}});
  CHECK(events[0].tokens == std::vector<TokenId>(tokens.begin(), tokens.begin() + 16));
  CHECK(simulation.take_events().empty());
}
