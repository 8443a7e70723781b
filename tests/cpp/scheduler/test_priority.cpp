// Order by priority: who comes in, who makes way, and for whom nobody does. And policies that there are not.
#include <doctest/doctest.h>

#include <limits>
#include <vector>

#include "pagedcore/error.hpp"
#include "service.hpp"

using namespace pagedcore;

namespace {

SchedulerRequest request(std::uint64_t id, std::int32_t priority, std::uint32_t prompt, std::uint32_t max_tokens) {
  SchedulerRequest request = fake::request(id, prompt, max_tokens, 1000);
  request.priority = priority;
  return request;
}

using Ids = std::vector<std::uint64_t>;

struct Served : fake::Service {
  using Service::Service;
  /// One plan and its step: ids of what it computes, in order, and of what it preempted.
  Ids computed, preempted;
  void step() {
    const StepPlan plan = scheduler.plan(0.0);
    scheduler.check();
    computed.clear();
    preempted.clear();
    for (const ScheduledSequence& s : plan.sequences) computed.push_back(raw(s.request));
    for (const RequestId id : plan.preempted) preempted.push_back(raw(id));
    if (!plan.empty()) scheduler.commit(executor.run(plan));
    scheduler.check();
  }
};

}  // namespace

TEST_CASE("higher priorities come in and compute first; ties by arrival") {
  Served service({.max_batched_tokens = 64, .order = ServiceOrder::priority}, {.num_blocks = 64, .block_size = 4});
  service.submit(request(1, 0, 8, 4));
  service.submit(request(2, -1, 8, 4));
  service.submit(request(3, 7, 8, 4));
  service.submit(request(4, 7, 8, 4));
  service.step();
  CHECK(service.computed == Ids{3, 4, 1, 2});
  // One that arrives while others run computes before those of lower priorities, as far as the rows go.
  service.submit(request(5, 1, 62, 4));
  service.step();
  CHECK(service.computed == Ids{3, 4, 5});
  CHECK(service.preempted.empty());
  service.finish();
}

// rule: scheduler.priority-preempts-lower
TEST_CASE("one that waits preempts lower priorities only, the lowest first and no more than it needs") {
  for (const VictimPolicy victim : {VictimPolicy::cheapest, VictimPolicy::last_arrival}) {
    Served service({.watermark = 0, .order = ServiceOrder::priority, .victim = victim},
                   {.num_blocks = 16, .block_size = 4, .enable_prefix_caching = false});
    service.submit(request(1, 5, 15, 9));
    service.submit(request(2, 1, 15, 9));
    service.submit(request(3, 2, 15, 9));
    service.step();
    service.step();
    CHECK(service.computed == Ids{1, 3, 2});
    service.submit(request(4, 5, 16, 8));  // five blocks with its next token; four are free, or fewer
    service.step();
    CHECK(service.preempted == Ids{2});
    CHECK(service.computed == Ids{1});  // what comes behind it leaves the room alone
    service.step();
    CHECK(service.computed == Ids{1, 4, 3});
    CHECK(service.preempted.empty());
    // The same priority makes nobody's way, and an equal one that waits blocks those behind it.
    service.submit(request(5, 2, 20, 4));
    service.step();
    CHECK(service.preempted.empty());
    CHECK(service.computed == Ids{1, 4, 3});
    service.finish();
  }
}

// rule: scheduler.priority-preempts-lower
TEST_CASE("nobody makes way in vain, and a step may do nothing else") {
  Served service({.watermark = 0, .order = ServiceOrder::priority},
                 {.num_blocks = 16, .block_size = 4, .enable_prefix_caching = false});
  service.submit(request(1, 5, 36, 4));  // nine blocks and one more
  service.submit(request(2, 1, 15, 9));
  service.step();
  service.submit(request(3, 3, 32, 8));  // nine blocks: not while the first runs
  service.step();
  CHECK(service.preempted.empty());
  CHECK(service.computed == Ids{1, 2});
  service.finish();

  Served alone({.watermark = 0, .order = ServiceOrder::priority},
               {.num_blocks = 16, .block_size = 4, .enable_prefix_caching = false});
  alone.submit(request(1, 0, 15, 9));
  alone.step();
  alone.submit(request(2, 1, 60, 4));
  alone.step();
  CHECK(alone.computed.empty());
  CHECK(alone.preempted == Ids{1});
  alone.step();
  CHECK(alone.computed == Ids{2});
  alone.finish();
}

TEST_CASE("where nobody is evicted, a priority is a place in the queue") {
  Served service({.watermark = 0, .order = ServiceOrder::priority, .admission = AdmissionPolicy::never_evict},
                 {.num_blocks = 16, .block_size = 4, .enable_prefix_caching = false});
  service.submit(request(1, 0, 15, 9));  // six blocks
  service.submit(request(2, 0, 15, 9));
  service.step();
  CHECK(service.computed == Ids{1, 2});
  service.submit(request(3, 0, 15, 9));
  service.submit(request(4, 9, 15, 9));
  Ids order;
  for (int i = 0; service.scheduler.has_work(); ++i) {
    REQUIRE(i < 200);
    service.step();
    CHECK(service.preempted.empty());
    for (const std::uint64_t id : service.computed) {
      if (std::ranges::find(order, id) == order.end()) order.push_back(id);
    }
  }
  CHECK(order == Ids{1, 2, 4, 3});
}

TEST_CASE("other orders do not look at priorities; contiguous chunks are not taken away") {
  for (const ServiceOrder order : {ServiceOrder::fcfs, ServiceOrder::fair}) {
    Served service({.order = order}, {.num_blocks = 64, .block_size = 4});
    service.submit(request(1, 0, 8, 4));
    service.submit(request(2, 5, 8, 4));
    service.step();
    CHECK(service.computed == Ids{1, 2});
    service.finish();
  }
  Served service({.order = ServiceOrder::priority},
                 {.num_blocks = 16, .block_size = 4, .allocation = AllocationPolicy::oracle, .max_reservation = 64});
  service.submit(request(1, 0, 20, 12));
  service.submit(request(2, 0, 20, 12));
  service.step();
  service.submit(request(3, 0, 20, 12));
  service.submit(request(4, 1, 20, 12));
  while (service.computed == Ids{1, 2}) service.step();
  CHECK(service.computed == Ids{4, 3});
  service.finish();
}

TEST_CASE("a prefix that is registered is computed before those who may name it") {
  Served service({.max_batched_tokens = 16, .order = ServiceOrder::priority}, {.num_blocks = 64, .block_size = 4});
  service.submit(request(1, kMostPriority, 40, 4));
  const SchedulerRequest prefix = request(9, -kMostPriority, 20, 0);
  service.scheduler.register_prefix(PrefixId{1}, prefix);
  service.requests[9] = prefix;
  SchedulerRequest user = request(2, kMostPriority, 0, 4);
  user.prompt = prefix.prompt;
  user.prompt.push_back(1);
  user.prefix = PrefixId{1};
  service.submit(user);
  service.step();
  CHECK(service.computed == Ids{9});
  while (service.scheduler.has_work()) service.step();
  service.scheduler.release_prefix(PrefixId{1});
  CHECK(service.scheduler.cache().counts().used == 0);
}

TEST_CASE("policies and priorities that there are not") {
  const KvCacheConfig cache{.num_blocks = 4};
  CHECK_THROWS_WITH_AS(Scheduler({.order = ServiceOrder{3}}, cache), "order policy 3 is unknown", InvalidArgument);
  CHECK_THROWS_WITH_AS(Scheduler({.admission = AdmissionPolicy{4}}, cache), "admission policy 4 is unknown",
                       InvalidArgument);
  CHECK_THROWS_WITH_AS(Scheduler({.victim = VictimPolicy{2}}, cache), "victim policy 2 is unknown", InvalidArgument);
  for (const double weight :
       {-1.0, std::numeric_limits<double>::infinity(), std::numeric_limits<double>::quiet_NaN()}) {
    CHECK_THROWS_WITH_AS(Scheduler({.prompt_weight = weight}, cache), doctest::Contains("prompt_weight = "),
                         InvalidArgument);
    CHECK_THROWS_AS(Scheduler({.output_weight = weight}, cache), InvalidArgument);
  }
  Scheduler scheduler({}, cache);
  CHECK_THROWS_WITH_AS(scheduler.submit(request(1, kMostPriority + 1, 4, 4)),
                       "request 1: priority = 1000001 is out of range: it must lie in [-1000000, 1000000]",
                       InvalidArgument);
  CHECK_THROWS_AS(scheduler.submit(request(1, -kMostPriority - 1, 4, 4)), InvalidArgument);
}
