// Registered prefixes against the capacity, to the block; and what requests share without prefix caching: nothing.
#include <doctest/doctest.h>

#include <vector>

#include "pagedcore/error.hpp"
#include "planned.hpp"

using namespace pagedcore;
using fake::Planned;
using fake::prompted;
using fake::request;
using fake::with;

namespace {

/// Whether a cache of so many blocks takes a user of a registered prefix of 16 tokens in 4 blocks; it is served then.
bool serves(std::uint32_t blocks, const SchedulerRequest& user) {
  Planned service({.watermark = 0}, {.num_blocks = blocks, .block_size = 4});
  const SchedulerRequest prefix = prompted(9, std::vector<TokenId>(16, 7), 0);
  service.scheduler.register_prefix(PrefixId{1}, prefix);
  service.requests[9] = prefix;
  service.next();
  REQUIRE(service.stats().blocks_pinned == 4);
  try {
    service.submit(user);
  } catch (const InvalidArgument&) {
    return false;
  }
  for (int i = 0; service.scheduler.has_work(); ++i) {
    REQUIRE(i < 100);
    service.next();
  }
  service.check_outputs();
  return true;
}

}  // namespace

TEST_CASE("a request that names a registered prefix needs blocks for what is its own") {
  const std::vector<TokenId> common(16, 7);
  SchedulerRequest user = prompted(1, with(common, 8, 1), 9);  // 32 slots, of which 16 are the prefix's
  user.prefix = PrefixId{1};
  CHECK(serves(4 + 4, user));
  CHECK_FALSE(serves(4 + 3, user));
  // The last token of a prompt is computed, and all of one that is scored.
  user = prompted(1, common, 5);
  user.prefix = PrefixId{1};
  CHECK(serves(4 + 2, user));
  CHECK_FALSE(serves(4 + 1, user));
  user.prompt_logprobs = true;
  CHECK(serves(4 + 5, user));
  CHECK_FALSE(serves(4 + 4, user));
  user.first_scored = 9;  // the row of token 8 scores it: the prefix's first two blocks are of use
  CHECK(serves(4 + 3, user));
  CHECK_FALSE(serves(4 + 2, user));
  user.first_scored = 0;
  user = prompted(1, common, 5);  // without its name
  CHECK(serves(4 + 5, user));
  CHECK_FALSE(serves(4 + 4, user));
}

TEST_CASE("without prefix caching requests share nothing, not even what preemptions left") {
  Planned service({}, {.num_blocks = 64, .block_size = 4, .enable_prefix_caching = false});
  for (std::uint64_t id = 1; id <= 2; ++id) service.submit(prompted(id, std::vector<TokenId>(18, 7), 8));
  service.next(2);
  for (std::uint64_t id = 1; id <= 2; ++id) REQUIRE(service.scheduler.force_preempt(RequestId{id}));
  service.next();
  CHECK(service.stats().running == 2);
  CHECK(service.scheduler.cache().counts().shared == 0);
  CHECK(service.stats().preemption_hit_tokens == 2 * 19);  // each finds its own
  service.finish();
  service.check_outputs();
}

TEST_CASE("a prefix leaves room for every request that was accepted, and for what its own computation needs") {
  for (const std::uint32_t blocks : {12u, 11u}) {
    Planned service({.watermark = 0}, {.num_blocks = blocks, .block_size = 4});
    service.submit(request(1, 20, 13));  // 8 blocks in the end
    const SchedulerRequest prefix = request(9, 16, 0);
    if (blocks == 12) {
      service.scheduler.register_prefix(PrefixId{1}, prefix);
      service.requests[9] = prefix;
    } else {
      CHECK_THROWS_WITH_AS(service.scheduler.register_prefix(PrefixId{1}, prefix),
                           doctest::Contains("8 that a request already accepted may need"), InvalidArgument);
    }
    for (int i = 0; service.scheduler.has_work(); ++i) {
      REQUIRE(i < 100);
      service.next();
    }
    service.check_outputs();
  }
  // With windows it needs more while it is computed in one step than it holds in the end: 6 + 6 blocks, and 6 + 3.
  for (const std::uint32_t blocks : {14u, 13u}) {
    Planned service({.max_batched_tokens = 24, .watermark = 0},
                    {.num_blocks = blocks, .block_size = 4, .windows = {0, 8}});
    const SchedulerRequest small = request(8, 4, 0), large = request(9, 24, 0);
    service.scheduler.register_prefix(PrefixId{1}, small);  // 2 blocks
    service.requests[8] = small;
    service.next();
    if (blocks == 14) {
      service.scheduler.register_prefix(PrefixId{2}, large);
      service.requests[9] = large;
      service.next();
      CHECK_FALSE(service.scheduler.has_work());
    } else {
      CHECK_THROWS_AS(service.scheduler.register_prefix(PrefixId{2}, large), InvalidArgument);
    }
  }
}

TEST_CASE("a registered prefix keeps no block that its windows have passed: what is counted for it is what it holds") {
  Planned service({.max_batched_tokens = 24}, {.num_blocks = 19, .block_size = 4, .windows = {0, 8}});
  const SchedulerRequest prefix = request(1, 24, 0);
  service.scheduler.register_prefix(PrefixId{1}, prefix);
  service.requests[1] = prefix;
  while (service.scheduler.has_work()) service.next();
  CHECK(service.scheduler.cache().counts().used == 8);  // 6 of full context, and 2 that a window of 8 reaches
  CHECK(service.stats().blocks_pinned == 8);
  service.submit(request(2, 17, 2));  // accepted, since it fits beside those
  for (int i = 0; service.scheduler.has_work(); ++i) {
    REQUIRE(i < 10);
    service.next();
  }
  service.check_outputs();
}

TEST_CASE("a registered prefix whose windows have passed is forked as a whole") {
  for (const std::uint32_t max_batched_tokens : {64u, 7u}) {
    Planned service({.max_batched_tokens = max_batched_tokens}, {.num_blocks = 80, .block_size = 1, .windows = {0, 4}});
    const SchedulerRequest prefix = request(9, 16, 0);
    service.scheduler.register_prefix(PrefixId{1}, prefix);
    service.requests[9] = prefix;
    while (service.scheduler.has_work()) service.next();
    SchedulerRequest user = prompted(2, with(prefix.prompt, 2, 5), 6);
    user.prefix = PrefixId{1};
    service.submit(user);
    CHECK(service.next().sequences.at(0).first_position == 16);
    while (service.scheduler.has_work()) service.next();
    service.check_outputs();
  }
}

// rule: scheduler.end-behind-the-step
TEST_CASE("the last block of a prefix waits for the step that copies it, also when user and prefix go meanwhile") {
  for (const bool caching : {false, true}) {
    CAPTURE(caching);
    Planned service({.watermark = 0}, {.num_blocks = 16, .block_size = 4, .enable_prefix_caching = caching});
    const std::vector<TokenId> common(6,
                                      7);  // the second of its blocks is half full: whoever goes on from it copies it
    const SchedulerRequest prefix = prompted(9, common, 0);
    service.scheduler.register_prefix(PrefixId{1}, prefix);
    service.requests[9] = prefix;
    service.next();
    SchedulerRequest user = prompted(1, with(common, 2, 1), 4);
    user.prefix = PrefixId{1};
    service.submit(user);
    const StepPlan plan = service.scheduler.plan(0.0);
    REQUIRE(plan.copies.size() == 1);
    REQUIRE(service.scheduler.abort(RequestId{1}));
    service.scheduler.release_prefix(PrefixId{1});
    CHECK(service.scheduler.cache().counts().used == 0);
    CHECK(service.scheduler.cache().counts().in_flight == 3);  // the prefix's two, and the copy
    service.scheduler.check();
    service.scheduler.commit(service.executor.run(plan));
    CHECK(service.scheduler.cache().counts().in_flight == 0);
  }
}

TEST_CASE("a prompt that is scored from a token on takes what comes before from the cache") {
  Planned service({.max_batched_tokens = 64}, {.num_blocks = 64, .block_size = 4});
  const std::vector<TokenId> common(16, 7);
  service.submit(prompted(1, with(common, 4, 1), 1));
  service.next(2);
  const auto planned = [&](std::uint64_t id, std::uint32_t first_scored) {
    SchedulerRequest user = prompted(id, with(common, 4, 1), 1);
    user.prompt_logprobs = true;
    user.first_scored = first_scored;
    service.submit(user);
    return service.next().sequences.at(0);
  };
  // Row r scores token r + 1: with token 11 the first, rows 10 to 18 are computed, and row 19 to sample it.
  ScheduledSequence work = planned(2, 11);
  CHECK(work.first_position == 10);
  CHECK(work.num_scored == 9);
  CHECK(work.num_rows == 10);
  for (const std::uint32_t all : {0u, 1u}) {
    work = planned(3 + all, all);
    CHECK(work.first_position == 0);
    CHECK(work.num_scored == 19);
  }
  SchedulerRequest beyond = prompted(9, with(common, 4, 1), 1);
  beyond.prompt_logprobs = true;
  beyond.first_scored = 20;
  CHECK_THROWS_WITH_AS(
      service.submit(beyond),
      "request 9: prompt_logprob_start is 20, but the tokens of the prompt are 0 to 19; start at one of "
      "them, or leave prompt_logprobs out",
      InvalidArgument);
}

TEST_CASE("a request without a limit generates what the cache holds beside registered prefixes") {
  // 10 blocks of 4, of which a prefix of 8 tokens pins 2. A prompt of 6 and t tokens fill 6 + t - 1 slots, so that 8
  // blocks hold t = 27, and all 10 hold 35.
  const SchedulerRequest prefix = prompted(9, std::vector<TokenId>(8, 7), 0);
  SchedulerRequest open = prompted(1, std::vector<TokenId>(6, 3), 1000);
  open.is_open_ended = true;
  const auto generated = [&](int steps_before, std::uint32_t samples) {
    Planned service({.watermark = 0}, {.num_blocks = 10, .block_size = 4});
    open.num_samples = samples;
    const auto add_prefix = [&] {
      service.scheduler.register_prefix(PrefixId{1}, prefix);
      service.requests[9] = prefix;
    };
    if (steps_before == 0) add_prefix();
    service.submit(open);
    for (int i = 0; service.scheduler.has_work(); ++i) {
      REQUIRE(i < 200);
      service.next();
      if (i + 1 == steps_before) add_prefix();
    }
    CHECK(service.stats().preemptions_swap == 0);
    std::size_t shortest = 1000;
    for (std::uint32_t k = 0; k < samples; ++k) shortest = std::min(shortest, service.samples[{1, k}].size());
    return shortest;
  };
  CHECK(generated(1000, 1) == 35);  // no prefix
  for (const int steps : {0, 1, 2, 20, 26}) CHECK(generated(steps, 1) == 27);
  // Two samples share the one full block of the prompt, and have (8 - 1) / 2 = 3 of their own: 16 slots each.
  for (const int steps : {0, 1, 5}) CHECK(generated(steps, 2) == 11);
}

TEST_CASE("a prefix for which a request without a limit has left no room is refused") {
  Planned service({.watermark = 0}, {.num_blocks = 10, .block_size = 4});
  SchedulerRequest open = prompted(1, std::vector<TokenId>(6, 3), 1000);
  open.is_open_ended = true;
  service.submit(open);
  service.next(29);  // 29 tokens: the draw of one more needs 34 slots, 9 blocks
  CHECK_THROWS_AS(service.scheduler.register_prefix(PrefixId{1}, prompted(9, std::vector<TokenId>(8, 7), 0)),
                  InvalidArgument);
  service.scheduler.register_prefix(PrefixId{1}, prompted(9, std::vector<TokenId>(4, 7), 0));
}
