// What admissions that look ahead count, to the block: in a cache that has room for it the second request comes in, and
// in one with a block less it waits.
#include <doctest/doctest.h>

#include <vector>

#include "planned.hpp"

using namespace pagedcore;
using fake::computed;
using fake::Ids;
using fake::Planned;
using fake::prompted;
using fake::request;
using fake::with;

// rule: scheduler.never-evict-preempts-nobody
TEST_CASE("never_evict: a block that a match only borrows is not spared") {
  // The first may come to 28 blocks (12 + 99 tokens). The second needs 4 and shares 2; of the third it takes two tokens
  // from a copy.
  for (const std::uint32_t blocks : {30u, 29u}) {
    Planned service({.watermark = 0, .admission = AdmissionPolicy::never_evict},
                    {.num_blocks = blocks, .block_size = 4});
    const std::vector<TokenId> common(10, 7);
    service.submit(prompted(1, with(common, 2, 1), 100));
    service.next();
    service.submit(prompted(2, with(common, 2, 2), 5));
    CHECK(computed(service.next()) == (blocks == 30 ? Ids{1, 2} : Ids{1}));
    CHECK(service.stats().prefix_hit_tokens == (blocks == 30 ? 10 : 0));
    service.finish();
    service.check_outputs();
    CHECK(service.stats().preemptions_recompute == 0);
  }
}

// rule: scheduler.never-evict-preempts-nobody
TEST_CASE("never_evict: with windows too the blocks of registered prefixes are nobody's") {
  // Two for the prefix, and four (8 + 8 tokens) for each request.
  for (const std::uint32_t blocks : {10u, 9u}) {
    Planned service({.watermark = 0, .admission = AdmissionPolicy::never_evict},
                    {.num_blocks = blocks, .block_size = 4, .windows = {64}});
    service.scheduler.register_prefix(PrefixId{1}, request(100, 8, 0));
    service.next();
    REQUIRE(service.stats().blocks_pinned == 2);
    service.submit(request(1, 8, 9));
    service.submit(request(2, 8, 9));
    CHECK(computed(service.next()) == (blocks == 10 ? Ids{1, 2} : Ids{1}));
    while (service.scheduler.has_work()) service.next();
    service.check_outputs();
    CHECK(service.stats().preemptions_recompute == 0);
  }
}

// rule: scheduler.adaptive-lies-between
TEST_CASE("adaptive: a search that comes in will have all its beams") {
  // The first request has 2 blocks and may take 5 more (8 + 19 tokens). The search takes 2 for its prompt, and 5 for
  // each of four beams.
  for (const std::uint32_t blocks : {29u, 28u}) {
    Planned service({.watermark = 0, .admission = AdmissionPolicy::adaptive}, {.num_blocks = blocks, .block_size = 4});
    service.submit(request(1, 8, 20));
    service.next();
    SchedulerRequest search = request(2, 8, 20);
    search.beam_width = 4;
    service.submit(search);
    CHECK(computed(service.next()) == (blocks == 29 ? Ids{1, 2} : Ids{1}));
    service.finish();
    service.check_outputs();
  }
}
