// Host memory that requests ask for: counted, refused with the arithmetic, and, where it cannot be had at any single
// allocation of any thread, the end of one request.
#include <doctest/doctest.h>
#include <malloc.h>

#include <atomic>
#include <cstdlib>
#include <mutex>
#include <new>
#include <set>
#include <string>
#include <vector>

#include "device.hpp"
#include "engine/request_memory.hpp"
#include "fake_executor.hpp"

namespace {

std::atomic<long> granted{-1};  // allocations that succeed before one fails; -1: none is counted
std::atomic<long> failing{0};   // how many fail then
std::atomic<long> live{0}, peak{0};
thread_local bool spared = false;  // this thread's allocations are neither counted nor fail

/// The calling thread's allocations succeed while it lives.
struct Spared {
  Spared() { spared = true; }
  ~Spared() { spared = false; }
};

std::mutex counting;

bool fails() {
  if (spared) return false;
  const std::lock_guard lock(counting);
  if (granted < 0) return false;
  if (granted > 0) {
    --granted;
    return false;
  }
  if (failing > 0) {
    --failing;
    return true;
  }
  granted = -1;
  return false;
}

/// Nothing fails from now on. Whether anything has.
bool stop_failing(long count) {
  const std::lock_guard lock(counting);
  return granted.exchange(-1) <= 0 || failing < count;
}

void* take(std::size_t size) {
  if (fails()) throw std::bad_alloc();
  void* memory = std::malloc(size);
  if (memory == nullptr) throw std::bad_alloc();
  const long now = live += static_cast<long>(malloc_usable_size(memory)) + 8;  // 8: the allocator's own
  for (long before = peak; before < now && !peak.compare_exchange_weak(before, now);) continue;
  return memory;
}
void give(void* memory) noexcept {
  if (memory != nullptr) live -= static_cast<long>(malloc_usable_size(memory)) + 8;
  std::free(memory);
}

}  // namespace

[[gnu::noinline]] void* operator new(std::size_t size) { return take(size); }
[[gnu::noinline]] void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
  try {
    return take(size);
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { give(memory); }
[[gnu::noinline]] void operator delete(void* memory, const std::nothrow_t&) noexcept { give(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { give(memory); }

using namespace pagedcore;
using namespace fake;

namespace {

EngineRequest asks_for_much(std::uint32_t n, std::uint32_t max_tokens, bool stream) {
  EngineRequest request = make_request(make_prompt(40, 3), max_tokens, n, stream);
  for (TokenId& token : request.prompt) token %= 150;
  request.sampling.stop_token_ids.clear();
  request.sampling.logprobs = 3;
  request.sampling.prompt_logprobs = 2;
  request.sampling.logprob_token_ids = {5, 6};
  request.sampling.repetition_penalty = 1.1f;
  request.sampling.top_p = 0.9f;
  return request;
}

EngineRequest neighbour() {
  EngineRequest request;
  request.prompt = {1, 2, 3, 4, 5, 6, 7};
  request.sampling.max_tokens = 30;
  request.sampling.temperature = 0.0f;
  return request;
}

/// Runs both while the allocations from `first` on fail, `count` of them. Whether any did.
bool run(Engine& engine, EngineRequest request, const std::vector<TokenId>& expected, long first, long count) {
  const Spared spared_here;
  EngineRequest first_there = neighbour();
  first_there.stream = true;
  const RequestId beside = engine.submit(std::move(first_there));
  std::vector<EngineOutput> early;
  while (early.empty()) early = engine.wait(1.0);  // it has been taken in
  failing = count;
  granted = first;
  const RequestId id = engine.submit(std::move(request));
  Collection all;
  all.add(early);
  for (int i = 0; engine.busy(); ++i) {
    all.add(engine.wait(0.1));
    REQUIRE(i < 1000);
  }
  const bool any = stop_failing(count);
  int ended = 0;
  for (const auto& [key, collected] : all.samples) {
    CHECK(all.lasts.at(key.first) == 1);
    if (collected.finish != FinishReason::error) continue;
    CHECK(collected.error == "out of memory");
    ended += key.second == 0;
  }
  if (count == 1) CHECK(all.at(beside).finish == FinishReason::length);  // what fails once is done again
  if (all.at(beside).finish == FinishReason::length) CHECK(all.at(beside).tokens == expected);
  CHECK(all.lasts.contains(raw(id)));
  return any;
}

}  // namespace

// rule: engine.request-fails-alone
TEST_CASE("whichever allocation fails, on any thread, one request ends and its neighbour does not notice") {
  tiny::TinyModel model;
  EngineConfig config = device::config(DType::f32, 2);
  config.kv.num_blocks = 200;
  Engine engine(model.description, model.weights, config);
  engine.submit(neighbour());
  const std::vector<TokenId> expected = drain(engine).at(RequestId{1}).tokens;
  REQUIRE(expected.size() == 30);
  for (const bool stream : {false, true}) {
    for (const long count : {1L, 40L}) {
      CAPTURE(stream);
      CAPTURE(count);
      bool any = true;
      for (long first = 0; any; first += count == 1 ? 1 : 7) {
        CAPTURE(first);
        any = run(engine, asks_for_much(2, 8, stream), expected, first, count);
        REQUIRE(first < 20000);
      }
    }
  }
  engine.submit(neighbour());
  const std::uint64_t last = engine.submit(neighbour()) == RequestId{} ? 0 : 1;
  CHECK(last == 1);
  const Collection after = drain(engine);
  for (const auto& [key, collected] : after.samples) CHECK(collected.tokens == expected);
  CHECK(engine.stats().at("blocks_used") == 0.0);
}

TEST_CASE("a submission that lacks memory changes nothing") {
  const auto loop = make_loop();
  for (long first = 0;; ++first) {
    REQUIRE(first < 1000);
    failing = 1;
    granted = first;
    bool failed = false;
    try {
      std::vector<EngineRequest> requests;
      {
        const Spared spared_here;
        requests.push_back(make_request(make_prompt(10, 1), 3, 4));
        requests.push_back(make_request(make_prompt(10, 2), 3, 4));
      }
      loop->submit_all(std::move(requests));
    } catch (const std::bad_alloc&) {
      failed = true;
    }
    granted = -1;
    if (!failed) break;
    CHECK_FALSE(loop->busy());
  }
  CHECK(drain(*loop).samples.size() == 8);
}

TEST_CASE("what a request may hold is what it is counted with, or less") {
  const Spared nothing_fails;
  struct Case {
    std::uint32_t prompt, n, max_tokens;
    std::optional<std::int32_t> logprobs, prompt_logprobs;
  };
  const Case cases[] = {{2000, 65536, 1, {}, {}}, {10, 1, 1, {}, {}},      {100, 300, 100, {}, {}},
                        {50, 20, 50, 10, {}},     {20, 2, 30, -1, {}},     {150, 1, 0, {}, -1},
                        {2000, 1, 100, {}, 5},    {2000, 1000, 20, {}, {}}};
  for (const Case& c : cases) {
    CAPTURE(c.prompt);
    CAPTURE(c.n);
    tiny::TinyModel model;
    model.description.max_context = 4096;
    EngineConfig config = device::config(DType::f32, 1);
    config.kv.num_blocks = 9000;
    config.scheduler.max_batched_tokens = 256;
    config.scheduler.max_sequences = 256;
    Engine engine(model.description, model.weights, config);
    EngineRequest request = make_request(std::vector<TokenId>(c.prompt, 7), c.max_tokens, c.n);
    request.sampling.stop_token_ids.clear();
    request.sampling.logprobs = c.logprobs;
    request.sampling.prompt_logprobs = c.prompt_logprobs;
    EngineRequest first = make_request(std::vector<TokenId>(256, 3), 2);
    first.sampling = request.sampling;
    first.sampling.n = 1;
    first.sampling.max_tokens = std::min(c.max_tokens, 2u);
    engine.submit(std::move(first));  // scratch of a full step is not a request's
    drain(engine);
    const RequestBytes bytes = bytes_of(request, c.max_tokens, model.description.vocab_size,
                                        (c.prompt + c.max_tokens + config.kv.block_size - 1) / config.kv.block_size);
    spared = false;
    const long before = peak = live.load();
    engine.submit(std::move(request));
    std::vector<EngineOutput> outputs;
    while (engine.busy()) {
      for (EngineOutput& output : engine.wait(1.0)) outputs.push_back(std::move(output));
    }
    spared = true;
    CHECK(outputs.size() == c.n);
    CHECK(peak - before <= static_cast<long>(bytes.total()));
    CHECK(peak - before > static_cast<long>(bytes.total()) / 40);  // it is no guess
  }
}

TEST_CASE("requests are refused with the arithmetic, and counted until their last output is taken") {
  RequestLimits limits{kVocab, 5000};
  limits.request_memory = 1'000'000;
  auto requests = std::make_unique<RequestTable>();
  auto executor = std::make_unique<FakeExecutor>(*requests);
  EngineLoop loop(limits, Scheduler({64, 32, 5000, 0.01}, {4000, 4, true}), std::move(requests), std::move(executor));
  EngineRequest much = make_request(make_prompt(100, 1), 10, 1000);
  // 4096 + 100 x 12 for itself and its prompt, 8 for its stop token, and 1000 x (1024 + 28 blocks x 12 + 10 x 24) for
  // its samples.
  CHECK_THROWS_WITH_AS(
      loop.submit(much),
      "the request may come to need 1605304 bytes of host memory, but request_memory is 1000000: 5304 for itself and "
      "its "
      "prompt + 1000 x (1360 for a sample + 240 for its tokens); lower the number of samples, or max_tokens, or raise "
      "request_memory",
      InvalidArgument);
  much = make_request(make_prompt(100, 1), 100);
  much.sampling.logprobs = 500;
  // 100 positions of 501 x 12 + 4 bytes, twice while their table grows.
  CHECK_THROWS_WITH_AS(loop.submit(much),
                       "the request may come to need 1212528 bytes of host memory, but request_memory is 1000000: 5304 "
                       "for itself and its prompt + 1 x (1624 for a sample + 2400 for its tokens + 1203200 for their "
                       "log-probabilities); lower logprobs or max_tokens, or raise request_memory",
                       InvalidArgument);
  const EngineRequest half = make_request(make_prompt(100, 1), 10, 400);  // 645,304 bytes
  loop.submit(half);
  CHECK_THROWS_AS(loop.submit(half), OutOfMemory);
  loop.submit(make_request(make_prompt(10, 1), 10));
  for (int i = 0; loop.stats().requests_finished < 2 && i < 10000; ++i) std::this_thread::yield();
  CHECK_THROWS_AS(loop.submit(half), OutOfMemory);  // its outputs are still there
  while (loop.busy()) loop.wait(1.0);
  loop.submit(half);
  CHECK(drain(loop).samples.size() == 400);
}
