// What services need of an engine: wake-ups, queues, names, deadlines, bounds, pauses and drains.
#include <doctest/doctest.h>
#include <poll.h>

#include <atomic>
#include <chrono>
#include <limits>
#include <map>
#include <mutex>
#include <string>
#include <thread>

#include "engine/output_queue.hpp"
#include "engine/wake_up.hpp"
#include "fake_executor.hpp"

using namespace fake;

namespace {

bool readable(int fd, int milliseconds = 0) {
  pollfd entry{fd, POLLIN, 0};
  return ::poll(&entry, 1, milliseconds) == 1;
}

/// Holds the engine's thread inside a step while it is closed.
class Gate {
 public:
  FakeExecutor::Hook hook() {
    return [this](const StepPlan&, std::uint64_t) {
      ++steps;
      const std::lock_guard through(closed);
      return std::vector<RequestId>();
    };
  }
  std::mutex closed;
  std::atomic<int> steps{0};
};

void wait_until(const auto& what) {
  for (int i = 0; !what() && i < 60000; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  REQUIRE(what());
}

/// Never ends by itself within a test.
EngineRequest endless(std::uint32_t seed, bool stream = false) {
  EngineRequest request = make_request(make_prompt(4, seed), 150, 1, stream);
  request.sampling.stop_token_ids = {};
  return request;
}

EngineRequest named(const char* name, std::uint32_t seed = 1) {
  EngineRequest request = make_request(make_prompt(5, seed), 3);
  request.options.request_id = name;
  return request;
}

/// Stop tokens are drawn by the executor whatever the request says: a prompt whose output has none.
std::uint32_t seed_without_stop(std::size_t length, std::uint32_t tokens) {
  for (std::uint32_t seed = 1;; ++seed)
    if (expected_output(make_prompt(length, seed), 0, tokens).back() != kStop) return seed;
}

}  // namespace

TEST_CASE("a descriptor is readable while it is raised, of either kind") {
  for (const WakeUp::Kind kind : {WakeUp::Kind::eventfd, WakeUp::Kind::pipe}) {
    WakeUp wake_up(kind);
    CHECK_FALSE(readable(wake_up.fd()));
    for (int round = 0; round < 100000; ++round) {  // more than a pipe holds
      wake_up.raise();
      wake_up.raise();
      if (round % 1000 == 0) CHECK(readable(wake_up.fd()));
      wake_up.lower();
      wake_up.lower();
      if (round % 1000 == 0) CHECK_FALSE(readable(wake_up.fd()));
    }
  }
}

// rule: engine.readable-while-there-is-news
TEST_CASE("the descriptor of a queue is readable while wait() would not sleep") {
  const auto loop = make_loop();
  const int fd = loop->output_fd();
  CHECK(loop->output_fd() == fd);
  CHECK_FALSE(readable(fd));
  loop->submit(make_request(make_prompt(5, 1), 3));
  CHECK(readable(fd, 60000));
  CHECK(readable(fd));
  CHECK(loop->wait(0.0).size() == 1);
  CHECK_FALSE(readable(fd));
  loop->submit(make_request(make_prompt(5, 2), 3));
  wait_until([&] { return loop->stats().requests_finished == 2; });
  const int other = loop->output_fd(loop->open_queue());
  CHECK_FALSE(readable(other));
  loop->close();
  CHECK(readable(fd));
  CHECK(readable(other));
  CHECK_THROWS_AS(loop->wait(0.0), Aborted);
  CHECK(readable(fd));
}

// rule: engine.readable-while-there-is-news
TEST_CASE("a callback comes once for all outputs of a step, and at the end") {
  Gate gate;
  const auto loop = make_loop({.hook = gate.hook()});
  std::atomic<int> calls{0}, outputs{0};
  loop->on_output([&] {
    ++calls;
    try {
      outputs += static_cast<int>(loop->wait(0.0).size());
    } catch (const Aborted&) {
    }
  });
  {
    const std::lock_guard hold(gate.closed);
    for (std::uint32_t i = 0; i < 8; ++i) loop->submit(endless(i, true));
  }
  wait_until([&] { return !loop->busy(); });
  CHECK(calls <= gate.steps);
  CHECK(outputs > 2 * calls);  // eight streams share their steps
  CHECK(outputs >= 8 * 100);
  const int before = calls;
  loop->on_output({});
  loop->submit(endless(9));
  wait_until([&] { return loop->stats().requests_finished == 9; });
  CHECK(calls == before);
  std::thread::id on;
  loop->on_output([&] { ++calls, on = std::this_thread::get_id(); });
  CHECK(calls == before + 1);  // outputs waited
  CHECK(on == std::this_thread::get_id());
  loop->close();
  CHECK(calls == before + 2);
  CHECK(on != std::this_thread::get_id());
}

TEST_CASE("an engine that fails calls back, and its descriptors are readable") {
  Gate gate;
  const auto loop =
      make_loop({.hook = [](const StepPlan&, std::uint64_t) -> std::vector<RequestId> { throw Corrupt("injected"); }});
  const QueueId idle = loop->open_queue();
  std::atomic<int> calls{0};
  loop->on_output([&] { ++calls; }, idle);
  const int fd = loop->output_fd(idle);
  loop->submit(endless(1));
  CHECK(readable(fd, 60000));
  wait_until([&] { return calls == 1; });
  CHECK_THROWS_WITH_AS(loop->wait(0.0, idle), doctest::Contains("injected"), Aborted);
  CHECK(loop->wait(1.0).front().finish == FinishReason::error);
}

// rule: engine.queues-apart
TEST_CASE("each request's outputs come to its queue; closing one ends its requests") {
  const auto loop = make_loop();
  const QueueId mine = loop->open_queue(), yours = loop->open_queue();
  EngineRequest request = endless(1, true);
  request.queue = mine;
  const RequestId first = loop->submit(request);
  request.queue = yours;
  const RequestId second = loop->submit(request);
  for (int got = 0; got < 20;) {
    for (const EngineOutput& output : loop->wait(1.0, mine)) {
      CHECK(output.request == first);
      got += static_cast<int>(output.tokens.size());
    }
  }
  loop->close_queue(mine);
  CHECK_THROWS_WITH_AS(loop->wait(0.0, mine), doctest::Contains("is closed, or never was"), InvalidArgument);
  CHECK_THROWS_AS(loop->output_fd(mine), InvalidArgument);
  request.queue = mine;
  CHECK_THROWS_AS(loop->submit(request), InvalidArgument);
  Collection all;
  while (all.lasts[raw(second)] == 0) all.add(loop->wait(1.0, yours));
  CHECK(all.at(second).tokens == expected_output(request.prompt, 0, 150));
  wait_until([&] { return !loop->busy(); });
  CHECK(loop->stats().blocks.used == 0);
  CHECK(loop->wait(0.0).empty());
  loop->close_queue(QueueId{0});  // the engine's own stays
  loop->close_queue(QueueId{77});
  CHECK(loop->wait(0.0).empty());
}

TEST_CASE("queues are closed while their requests wait, run, and have ended, beside others") {
  const auto loop = make_loop({.max_sequences = 4, .hook = {}});
  std::vector<std::thread> threads;
  for (std::uint32_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (std::uint32_t round = 0; round < 50; ++round) {
        const QueueId queue = loop->open_queue();
        for (std::uint32_t i = 0; i < 5; ++i) {
          EngineRequest request = make_request(make_prompt(3 + i, t * 1000 + round * 10 + i), 2 + i * 3, 1, i % 2 == 0);
          request.queue = queue;
          request.options.request_id = std::to_string(t * 1000 + round * 10 + i);
          loop->submit(request);
        }
        for (std::uint32_t i = 0; i < round % 5; ++i) loop->wait(0.001, queue);
        loop->close_queue(queue);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  wait_until([&] { return !loop->busy(); });
  const EngineStats stats = loop->stats();
  CHECK(stats.blocks.used == 0);
  CHECK(stats.requests_finished + stats.requests_aborted == 4 * 50 * 5);
  for (std::uint32_t i = 0; i < 4000; i += 1000) loop->submit(named(std::to_string(i).c_str()));  // names are free
}

// rule: engine.unread-news-join
TEST_CASE("news that nobody takes is joined") {
  const auto loop = make_loop();
  const std::uint32_t seed = seed_without_stop(5, 120);
  const auto prompt = make_prompt(5, seed);
  loop->submit(make_request(prompt, 120, 1, true));
  wait_until([&] { return loop->stats().requests_finished == 1; });
  const std::vector<EngineOutput> outputs = loop->wait(1.0);
  REQUIRE(outputs.size() == 1);
  CHECK(outputs[0].tokens == expected_output(prompt, 0, 120));
  CHECK(outputs[0].last);
  CHECK(outputs[0].finish == FinishReason::length);
}

// rule: engine.one-last-output
TEST_CASE("a request's last output comes last, though news of its sample is there that it could join") {
  auto put = [unread = Unread(2)](OutputQueue& queue, std::uint32_t sample, TokenId token, bool last) mutable {
    News news(1);
    news.front().sample = sample;
    news.front().tokens = {token};
    news.front().last = last;
    queue.put(news, news.begin(), unread);
  };
  OutputQueue queue;
  put(queue, 0, 10, false);
  put(queue, 1, 20, false);
  put(queue, 0, 11, false);
  put(queue, 0, 12, true);
  News emptied;
  std::vector<TokenId> of_first;
  bool ended = false;
  for (const EngineOutput& output : queue.take(emptied)) {
    CHECK_FALSE(ended);
    ended = output.last;
    if (output.sample == 0) of_first.insert(of_first.end(), output.tokens.begin(), output.tokens.end());
  }
  CHECK(ended);
  CHECK(of_first == std::vector<TokenId>{10, 11, 12});
}

// rule: engine.names-are-one-request
TEST_CASE("a name belongs to one open request, which it can abort") {
  Gate gate;
  const auto loop = make_loop({.hook = gate.hook()});
  {
    const std::lock_guard hold(gate.closed);
    loop->submit(named("a"));
    CHECK_THROWS_WITH_AS(loop->submit(named("a", 2)), doctest::Contains("request_id 'a' is in use"), InvalidArgument);
    CHECK_THROWS_WITH_AS(loop->submit_all({named("b"), named("c"), named("b")}),
                         doctest::Contains("request 2: request_id 'b' is in use"), InvalidArgument);
    CHECK(loop->submit_all({named("b"), named("c")}).size() == 2);  // none of those before was submitted
    CHECK_THROWS_WITH_AS(loop->submit(named(std::string(257, 'x').c_str())), doctest::Contains("257 bytes"),
                         InvalidArgument);
    loop->abort("nobody");
    loop->abort("b");
  }
  std::map<FinishReason, int> ends;
  while (loop->busy()) {
    for (const EngineOutput& output : loop->wait(1.0)) ++ends[output.finish];
  }
  CHECK(ends[FinishReason::abort] == 1);
  CHECK(ends.size() >= 2);
  loop->submit(named("a"));
  CHECK(drain(*loop).lasts.size() == 1);
}

// rule: engine.deadline-is-an-end
TEST_CASE("a request ends when its time is over, waiting or running") {
  const auto loop = make_loop({.max_sequences = 1, .hook = [&](const StepPlan&, std::uint64_t) {
                                 std::this_thread::sleep_for(std::chrono::milliseconds(5));
                                 return std::vector<RequestId>();
                               }});
  const std::uint32_t seed = seed_without_stop(4, 150);
  EngineRequest running = endless(seed, true);  // 150 steps of 5 ms
  running.options.deadline = 0.1;
  const RequestId first = loop->submit(running);
  EngineRequest waiting = make_request(make_prompt(4, 2), 2);
  waiting.options.deadline = 0.03;
  const RequestId second = loop->submit(waiting);
  EngineRequest relaxed = make_request(make_prompt(4, 3), 2);
  relaxed.options.deadline = 1e6;
  const RequestId third = loop->submit(relaxed);
  const Collection all = drain(*loop);
  CHECK(all.at(first).finish == FinishReason::deadline);
  CHECK(all.at(first).tokens.size() < 150);
  CHECK(all.at(second).finish == FinishReason::deadline);
  CHECK(all.at(second).tokens.empty());
  CHECK(all.at(third).finish != FinishReason::deadline);
  CHECK(loop->stats().requests_expired == 2);
  CHECK(loop->stats().blocks.used == 0);
  for (const double bad : {-1.0, std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
    waiting.options.deadline = bad;
    CHECK_THROWS_AS(loop->submit(waiting), InvalidArgument);
  }
  loop->pause();  // deadlines go on
  relaxed.options.deadline = 0.01;
  loop->submit(relaxed);
  CHECK(loop->wait(60.0).front().finish == FinishReason::deadline);
}

// rule: engine.waiting-is-bounded
TEST_CASE("what would wait beyond max_waiting is refused, exactly") {
  Gate gate;
  const auto loop = make_loop({.max_sequences = 2, .max_waiting = 3, .hook = gate.hook()});
  {
    const std::lock_guard hold(gate.closed);
    loop->submit_all({endless(1), endless(2)});
    wait_until([&] { return gate.steps == 1; });  // both are inside the step; nothing was published yet
    CHECK_THROWS_WITH_AS(loop->submit_all({endless(3), endless(4)}),
                         doctest::Contains("2 requests wait to begin, and 2 more would exceed max_waiting = 3"),
                         Overloaded);
    loop->submit(endless(3));
    CHECK_THROWS_AS(loop->submit(endless(4)), Overloaded);
  }
  wait_until([&] { return gate.steps >= 2; });
  {
    const std::lock_guard hold(gate.closed);
    loop->submit_all({endless(4), endless(5)});  // one waits still
    CHECK_THROWS_AS(loop->submit(endless(6)), Overloaded);
    CHECK(loop->stats().requests_refused == 4);
  }
  CHECK(drain(*loop).lasts.size() == 5);
  const RequestId aborted = loop->submit(endless(1));  // those that end without having begun wait no more
  loop->abort(aborted);
  drain(*loop);
  for (std::uint32_t i = 0; i < 20; ++i) {
    loop->abort(loop->submit(make_request(make_prompt(3, i), 1)));
    drain(*loop);
  }
  CHECK(loop->submit_all({endless(1), endless(2), endless(3)}).size() == 3);
}

// rule: engine.drain-and-pause
TEST_CASE("draining refuses new requests, finishes those that are there, and says what is left") {
  Gate gate;
  const auto loop = make_loop({.hook = gate.hook()});
  CHECK(loop->drain(0.0).empty());
  CHECK_THROWS_WITH_AS(loop->submit(endless(1)), doctest::Contains("drains"), Aborted);
  loop->resume();
  RequestId id{};
  {
    const std::lock_guard hold(gate.closed);
    id = loop->submit(make_request(make_prompt(4, 1), 5));
    CHECK(loop->drain(0.01) == std::vector{id});
    CHECK(loop->stats().draining == 1);
  }
  CHECK(loop->drain(60.0).empty());
  CHECK(drain(*loop).lasts.size() == 1);  // its outputs are there
  CHECK_THROWS_AS(loop->submit(endless(1)), Aborted);
  loop->resume();
  loop->submit(make_request(make_prompt(4, 2), 5));
  CHECK_THROWS_AS(loop->drain(std::numeric_limits<double>::quiet_NaN()), InvalidArgument);
}

// rule: engine.drain-and-pause
TEST_CASE("no step begins while the engine is paused") {
  Gate gate;
  const auto loop = make_loop({.hook = gate.hook()});
  loop->submit(endless(seed_without_stop(4, 150)));
  for (int round = 0; round < 20; ++round) {
    loop->pause();
    const int steps = gate.steps;
    CHECK(loop->stats().paused == 1);
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    CHECK(gate.steps == steps);
    loop->pause();
    loop->resume();
    loop->resume();
    if (!loop->busy()) break;
  }
  loop->pause();
  const RequestId waits = loop->submit(make_request(make_prompt(4, 7), 5));
  loop->abort(waits);
  bool aborted = false;
  while (!aborted) {
    for (const EngineOutput& output : loop->wait(60.0)) aborted = aborted || output.finish == FinishReason::abort;
  }
  std::thread closer([&] { loop->close(); });
  closer.join();
  CHECK_THROWS_AS(loop->pause(), Aborted);
  CHECK_THROWS_AS(loop->resume(), Aborted);
}

TEST_CASE("outputs say when what became of their request") {
  const auto loop = make_loop();
  const double before = loop->now();
  const std::uint32_t seed = seed_without_stop(150, 20);
  loop->submit(make_request(make_prompt(150, seed), 20, 1, true));  // the prompt takes several steps of 64
  RequestTimes last{};
  while (loop->busy()) {
    for (const EngineOutput& output : loop->wait(1.0)) last = output.times;
  }
  CHECK(before <= last.queued);
  CHECK(last.queued <= last.scheduled);
  CHECK(last.scheduled < last.prefilled);
  CHECK(last.prefilled == last.first_token);
  CHECK(last.first_token < last.last_token);
  CHECK(last.last_token <= loop->now());
  loop->pause();
  loop->abort(loop->submit(make_request(make_prompt(3, 1), 1)));
  const EngineOutput never = loop->wait(60.0).front();
  CHECK(never.times.queued > last.last_token);
  CHECK(never.times.scheduled + never.times.prefilled + never.times.first_token + never.times.last_token == 0.0);
}
