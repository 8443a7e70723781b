#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <random>
#include <string>
#include <thread>

#include "fake_executor.hpp"

using namespace fake;

namespace {

std::string refusal(EngineLoop& loop, EngineRequest request) {
  try {
    loop.submit(std::move(request));
  } catch (const InvalidArgument& error) {
    return error.what();
  }
  return {};
}

}  // namespace

// rule: engine.one-last-output, engine.news-add-up
TEST_CASE("every sample gets its tokens, streamed or at once") {
  const auto loop = make_loop();
  struct Sent {
    RequestId id;
    std::vector<TokenId> prompt;
    std::uint32_t max_tokens, n;
    bool stream;
  };
  std::vector<Sent> sent;
  std::mt19937 rng(1);
  for (std::uint32_t i = 0; i < 120; ++i) {
    Sent s{{},
           make_prompt(1 + rng() % 90, i),
           1 + static_cast<std::uint32_t>(rng() % 40),
           i % 5 == 0 ? 3u : 1u,
           i % 2 == 0};
    s.id = loop->submit(make_request(s.prompt, s.max_tokens, s.n, s.stream));
    sent.push_back(s);
  }
  const Collection all = drain(*loop);
  for (const Sent& s : sent) {
    CHECK(all.lasts.at(raw(s.id)) == 1);
    for (std::uint32_t sample = 0; sample < s.n; ++sample) {
      const Collected& c = all.at(s.id, sample);
      const auto expected = expected_output(s.prompt, sample, s.max_tokens);
      CHECK(c.tokens == expected);
      CHECK(c.finish == (expected.back() == kStop ? FinishReason::stop : FinishReason::length));
      CHECK(c.news <= (s.stream ? static_cast<int>(expected.size()) : 1));  // fewer: what was not taken was joined
    }
  }
  const EngineStats stats = loop->stats();
  CHECK(stats.requests_finished == sent.size());
  CHECK(stats.requests_aborted + stats.requests_failed == 0);
  CHECK(stats.blocks.used == 0);
  CHECK(stats.blocks.free + stats.blocks.cached + stats.blocks.in_flight == stats.blocks.total);
}

TEST_CASE("a second request with the same prompt says how much was cached") {
  const auto loop = make_loop();
  const auto prompt = make_prompt(50, 3);
  loop->submit(make_request(prompt, 4));
  drain(*loop);
  loop->submit(make_request(prompt, 4));
  while (loop->busy()) {
    for (const EngineOutput& o : loop->wait(1.0))
      CHECK(o.cached_tokens == 49);  // whole blocks of 4, the last row computed
  }
  loop->clear_prefix_cache();
  loop->submit(make_request(prompt, 4));
  while (loop->busy()) {
    for (const EngineOutput& o : loop->wait(1.0)) CHECK(o.cached_tokens == 0);
  }
}

TEST_CASE("requests that are malformed or cannot fit are refused with the numbers, and nothing else happens") {
  const auto loop = make_loop();
  CHECK(refusal(*loop, make_request({1, kVocab}, 4)).find("prompt token 1 is 1000, but the vocabulary is [0, 1000)") !=
        std::string::npos);
  CHECK(refusal(*loop, make_request({-1}, 4)).find("prompt token 0 is -1") != std::string::npos);
  CHECK_FALSE(refusal(*loop, make_request({}, 4)).empty());
  CHECK(refusal(*loop, make_request(make_prompt(200, 0), 4)).find("a prompt of 200 tokens") != std::string::npos);
  EngineRequest bad = make_request({1}, 4);
  bad.sampling.top_p = 2.0f;
  CHECK(refusal(*loop, bad).find("top_p = 2") != std::string::npos);
  bad = make_request({1}, 4);
  bad.sampling.stop_token_ids = {kVocab};
  CHECK(refusal(*loop, bad).find("stop_token_ids") != std::string::npos);
  CHECK_FALSE(loop->busy());
  CHECK(loop->wait(0.0).empty());
}

TEST_CASE("many requests are submitted at once, or none of them") {
  const auto loop = make_loop();
  const auto prefix = loop->register_prefix("p", make_prompt(8, 1), 0);
  std::vector<EngineRequest> requests;
  for (std::uint32_t i = 0; i < 5; ++i) requests.push_back(make_request(make_prompt(10 + i, i), 6));
  requests[3].options.prefix = "q";
  const auto refused = [&](const char* says) {
    const double queries = static_cast<double>(loop->stats().prefix_query_tokens);
    CHECK_THROWS_WITH_AS(loop->submit_all(requests), doctest::Contains(says), InvalidArgument);
    CHECK(loop->submit_all({}).empty());
    CHECK(static_cast<double>(loop->stats().prefix_query_tokens) == queries);
  };
  while (loop->busy()) loop->wait(1.0);
  refused("request 3: prefix 'q' is not registered under salt");
  requests[3].options.prefix = "";
  requests[4].prompt[2] = kVocab;
  refused("request 4: prompt token 2 is 1000");
  CHECK(!loop->busy());
  requests[4].prompt[2] = 0;
  requests[2].prompt.insert(requests[2].prompt.begin(), 8, 0);
  std::ranges::copy(make_prompt(8, 1), requests[2].prompt.begin());
  requests[2].options.prefix = "p";
  const std::vector<RequestId> ids = loop->submit_all(requests);
  REQUIRE(ids.size() == 5);
  const Collection all = drain(*loop);
  for (std::size_t i = 0; i < ids.size(); ++i) {
    CHECK(raw(ids[i]) == raw(prefix) + 1 + i);  // the refused ones had no ids
    CHECK(all.at(ids[i], 0).tokens == expected_output(requests[i].prompt, 0, 6));
  }
  loop->close();
  CHECK_THROWS_AS(loop->submit_all(requests), Aborted);
}

// rule: engine.context-is-the-end
TEST_CASE("generation is cut where the context ends") {
  const auto loop = make_loop();
  const auto prompt = make_prompt(190, 1);
  const RequestId id = loop->submit(make_request(prompt, 1000));
  const Collection all = drain(*loop);
  CHECK(all.at(id).tokens == expected_output(prompt, 0, 10));
  CHECK(all.at(id).finish != FinishReason::error);
}

TEST_CASE("max_tokens = 0 computes the prompt and ends") {
  const auto loop = make_loop();
  const RequestId id = loop->submit(make_request(make_prompt(200, 1), 0));
  const Collection all = drain(*loop);
  CHECK(all.at(id).tokens.empty());
  CHECK(all.at(id).finish == FinishReason::length);
  CHECK(all.lasts.at(raw(id)) == 1);
}

// rule: engine.abort-between-steps
TEST_CASE("abort ends a request in any state; unknown ids are ignored") {
  std::atomic<bool> hold{true}, held{false};
  LoopOptions options;
  options.max_sequences = 2;
  options.hook = [&](const StepPlan&, std::uint64_t) {
    held = true;
    while (hold) std::this_thread::yield();
    return std::vector<RequestId>{};
  };
  const auto loop = make_loop(options);
  const RequestId running = loop->submit(make_request(make_prompt(10, 1), 100, 2, true));
  while (!held) std::this_thread::yield();  // the first step holds it alone; the rest arrives meanwhile
  const RequestId other = loop->submit(make_request(make_prompt(10, 2), 20));
  const RequestId waiting = loop->submit(make_request(make_prompt(10, 3), 20));
  loop->abort(running);
  loop->abort(waiting);
  loop->abort(RequestId{12345});
  hold = false;
  Collection all = drain(*loop);
  CHECK(all.at(running, 0).finish == FinishReason::abort);
  CHECK(all.at(running, 1).finish == FinishReason::abort);
  CHECK(all.at(waiting).finish == FinishReason::abort);
  CHECK(all.at(waiting).tokens.empty());
  CHECK(all.at(other).tokens == expected_output(make_prompt(10, 2), 0, 20));
  for (const RequestId id : {running, other, waiting}) CHECK(all.lasts.at(raw(id)) == 1);
  loop->abort(other);  // finished
  loop->submit(make_request({1}, 1));
  drain(*loop);
  const EngineStats stats = loop->stats();
  CHECK(stats.requests_aborted == 2);
  CHECK(stats.blocks.used == 0);
}

// rule: engine.same-request-same-bits
TEST_CASE("forced preemption changes no token, at any period") {
  for (const std::uint32_t period : {1u, 2u, 3u, 7u}) {
    LoopOptions options;
    options.max_batched_tokens = 7;
    const auto loop = make_loop(options);
    loop->force_preemption(period);
    std::vector<RequestId> ids;
    for (std::uint32_t i = 0; i < 12; ++i)
      ids.push_back(loop->submit(make_request(make_prompt(5 + i * 3, i), 12, 1 + i % 2)));
    const Collection all = drain(*loop);
    for (std::uint32_t i = 0; i < 12; ++i) {
      for (std::uint32_t sample = 0; sample < 1 + i % 2; ++sample) {
        CHECK(all.at(ids[i], sample).tokens == expected_output(make_prompt(5 + i * 3, i), sample, 12));
      }
    }
    CHECK(loop->stats().scheduler.preemptions_recompute > 0);
  }
}

TEST_CASE("few blocks: requests take turns and all end well") {
  LoopOptions options;
  options.num_blocks = 12;  // 48 tokens
  options.max_context = 48;
  const auto loop = make_loop(options);
  std::vector<RequestId> ids;
  for (std::uint32_t i = 0; i < 20; ++i) ids.push_back(loop->submit(make_request(make_prompt(1 + i, i), 20)));
  const Collection all = drain(*loop);
  for (std::uint32_t i = 0; i < 20; ++i) CHECK(all.at(ids[i]).tokens == expected_output(make_prompt(1 + i, i), 0, 20));
}

// rule: engine.one-last-output
TEST_CASE("many threads submit, abort and wait at once") {
  const auto loop = make_loop();
  constexpr int kThreads = 4, kEach = 60;
  std::atomic<int> lasts{0}, wrong{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937 rng(static_cast<unsigned>(t));
      for (int i = 0; i < kEach; ++i) {
        const auto seed = static_cast<std::uint32_t>(t * 1000 + i);
        const RequestId id = loop->submit(make_request(make_prompt(1 + rng() % 30, seed), 8, 1, rng() % 2 == 0));
        if (rng() % 3 == 0) loop->abort(id);
        for (const EngineOutput& o : loop->wait(0.0)) lasts += o.last;
        if (loop->stats().blocks.total != 200) ++wrong;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  while (loop->busy()) {
    for (const EngineOutput& o : loop->wait(0.1)) lasts += o.last;
  }
  CHECK(lasts == kThreads * kEach);
  CHECK(wrong == 0);
  const EngineStats stats = loop->stats();
  CHECK(stats.requests_finished + stats.requests_aborted == kThreads * kEach);
  CHECK(stats.blocks.used == 0);
}

TEST_CASE("the name of a prefix is free again when it was released, refused, or never got there") {
  const auto loop = make_loop();
  const auto refused = [&](const auto& call, const char* why) {
    try {
      call();
      FAIL("it was accepted");
    } catch (const InvalidArgument& error) {
      CHECK(std::string(error.what()).find(why) != std::string::npos);
    }
  };
  const auto ends = [&](RequestId id) {
    FinishReason finish = FinishReason::none;
    while (finish == FinishReason::none) {
      for (const EngineOutput& output : loop->wait(1.0)) {
        if (output.request == id && output.last) finish = output.finish;
      }
    }
    return finish;
  };
  const auto prefix = make_prompt(30, 5);
  CHECK(ends(loop->register_prefix("a", prefix, 0)) == FinishReason::length);
  CHECK(loop->stats().scheduler.prefixes == 1);
  refused([&] { loop->register_prefix("a", prefix, 0); }, "'a' is registered");
  refused([&] { loop->register_prefix("", prefix, 0); }, "is empty");
  refused([&] { loop->register_prefix("b", {-1}, 0); }, "prompt token 0 is -1");
  refused([&] { loop->release_prefix("b"); }, "'b' is not registered under salt 0 (registered: a)");

  EngineRequest request = make_request(prefix, 5);
  request.options.prefix = "b";
  refused([&] { loop->submit(request); }, "'b' is not registered under salt 0 (registered: a)");
  request.options.prefix = "a";
  request.prompt.push_back(1);
  CHECK(ends(loop->submit(request)) == FinishReason::length);
  request.prompt[3] ^= 1;  // leaves the prefix
  refused([&] { loop->submit(request); }, "leaves prefix 'a' at token 3 of 30");

  // More than what is left: told by its output, and the name is free.
  REQUIRE(loop->stats().blocks.total == 200);  // of 4 tokens
  for (const char* name : {"x", "y", "z"}) {
    CHECK(ends(loop->register_prefix(name, make_prompt(196, 7), 0)) == FinishReason::length);
  }
  CHECK(ends(loop->register_prefix("large", make_prompt(196, 8), 0)) == FinishReason::error);
  for (const char* name : {"x", "y", "z"}) loop->release_prefix(name);
  CHECK(ends(loop->register_prefix("large", make_prompt(8, 7), 0)) == FinishReason::length);
  // Aborted at once: whether it got there or not, nothing is left of it once the name is released.
  const RequestId id = loop->register_prefix("c", make_prompt(40, 8), 0);
  loop->abort(id);
  const FinishReason finish = ends(id);
  CHECK((finish == FinishReason::abort || finish == FinishReason::length));
  if (finish == FinishReason::length) loop->release_prefix("c");
  CHECK(ends(loop->register_prefix("c", make_prompt(12, 8), 0)) == FinishReason::length);
  for (const char* name : {"a", "large", "c"}) loop->release_prefix(name);
  drain(*loop);
  CHECK(ends(loop->submit(make_request(make_prompt(3, 1), 1))) == FinishReason::length);
  CHECK(loop->stats().blocks.used == 0);
  CHECK(loop->stats().scheduler.prefixes == 0);
}
