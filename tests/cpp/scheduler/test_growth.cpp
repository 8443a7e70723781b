// What a call costs may not grow with what it does not concern. Work is counted, at two sizes.
#include <doctest/doctest.h>

#include <algorithm>
#include <memory>
#include <numeric>
#include <random>
#include <set>
#include <vector>

#include "planned.hpp"
#include "scheduler/apply.hpp"
#include "scheduler/draft.hpp"
#include "scheduler/policy/order.hpp"
#include "scheduler/state.hpp"

using namespace pagedcore;
using namespace pagedcore::sched;

namespace {

struct Element {
  std::uint32_t key = 0;
  QueuePlace<Element> place;
};
long comparisons = 0;
bool is_lower(const Element& a, const Element& b) noexcept {
  ++comparisons;
  return a.key < b.key;
}
using Queue = OrderedQueue<Element, &Element::place, is_lower>;

/// Comparisons for each element when so many are inserted in this order of keys, and removed in random order.
double comparisons_each(const std::vector<std::uint32_t>& keys) {
  std::vector<Element> elements(keys.size());
  for (std::size_t i = 0; i < keys.size(); ++i) elements[i].key = keys[i];
  Queue queue;
  comparisons = 0;
  for (Element& element : elements) queue.insert(element);
  std::vector<std::size_t> order(keys.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::shuffle(order, std::mt19937(2));
  for (const std::size_t i : order) queue.erase(elements[i]);
  CHECK(queue.empty());
  return static_cast<double>(comparisons) / static_cast<double>(keys.size());
}

std::vector<std::uint32_t> ascending(std::size_t count) {
  std::vector<std::uint32_t> keys(count);
  std::iota(keys.begin(), keys.end(), 0u);
  return keys;
}

constexpr TokenId kWatched = 99'000;  // the first token of request 99
int lookups = 0;
/// Counts how often somebody looks for the watched prompt.
std::uint64_t counting_hash(std::uint64_t seed, const TokenId* tokens, std::size_t count) noexcept {
  lookups += tokens[0] == kWatched;
  for (std::size_t i = 0; i < count; ++i) seed = seed * 31 + static_cast<std::uint64_t>(tokens[i]);
  return seed;
}

}  // namespace

TEST_CASE("an ordered queue is what a set is") {
  std::mt19937 random(5);
  std::vector<Element> elements(300);
  for (std::uint32_t i = 0; i < elements.size(); ++i) elements[i].key = i * 7 % 300;
  Queue queue;
  std::set<std::uint32_t> expected;
  for (int op = 0; op < 20000; ++op) {
    Element& element = elements[random() % elements.size()];
    if (expected.erase(element.key) > 0) {
      queue.erase(element);
    } else {
      expected.insert(element.key);
      queue.insert(element);
    }
    REQUIRE(queue.size() == expected.size());
    if (op % 50 != 0) continue;
    auto next = expected.begin();
    const Element* before = nullptr;
    for (const Element* at = queue.front(); at != nullptr; before = at, at = at->place.next) {
      REQUIRE(at->key == *next++);
      REQUIRE(at->place.prev == before);
    }
    REQUIRE(next == expected.end());
    REQUIRE(queue.back() == before);
  }
}

// rule: scheduler.cost-follows-the-running
TEST_CASE("a place in a queue is found in a logarithm of its length, whatever the order of insertion") {
  // 64 times as many: each comparison more halves what is left.
  for (const int shape : {0, 1, 2}) {
    const auto keys = [&](std::size_t count) {
      std::vector<std::uint32_t> all = ascending(count);
      if (shape == 1) std::ranges::reverse(all);
      if (shape == 2) std::ranges::shuffle(all, std::mt19937(3));
      return all;
    };
    const double few = comparisons_each(keys(1 << 10)), many = comparisons_each(keys(1 << 16));
    CAPTURE(shape);
    CHECK(many < 2.0 * few);  // 16 levels for 10
  }
}

// rule: scheduler.cost-follows-the-running
TEST_CASE("the next one is found without looking at all tenants that wait") {
  constexpr std::uint64_t kTenants = 200, kPassed = 10;
  WaitingRoom room;
  std::vector<std::unique_ptr<Request>> requests;
  for (std::uint64_t i = 0; i < 2 * kTenants; ++i) {
    Request& request = *requests.emplace_back(std::make_unique<Request>());
    request.key.order = i;
    request.tenant = &room.tenant(kTenants - i % kTenants);  // alike, they come by their requests and not by their ids
    ++request.tenant->requests;
    room.insert(request);
  }
  // A counter that is less than it is listed with, which there never is, would bring forward whoever is looked at.
  for (std::uint64_t i = kPassed; i < kTenants; ++i) room.tenant(kTenants - i).served = -100.0;
  ServiceWalk walk;
  walk.begin(room);
  for (std::uint64_t i = 0; i < kPassed; ++i) {  // charged tenants go to the end
    REQUIRE(walk.peek() == requests[i].get());
    walk.pass(5.0);
  }
}

TEST_CASE("a tenant whose counter has grown comes later, though it is still listed in its old place") {
  WaitingRoom room;
  std::vector<std::unique_ptr<Request>> requests;
  for (std::uint64_t i = 0; i < 4; ++i) {
    Request& request = *requests.emplace_back(std::make_unique<Request>());
    request.key.order = i;
    request.tenant = &room.tenant(i);
    ++request.tenant->requests;
    room.insert(request);
  }
  room.tenant(0).served = 3.0;
  room.tenant(1).served = 1.0;
  const auto order = [&] {
    ServiceWalk walk;
    walk.begin(room);
    std::vector<std::uint64_t> ids;
    for (const Request* request = walk.peek(); request != nullptr; request = walk.peek()) {
      ids.push_back(request->key.order);
      walk.pass(0.0);
    }
    return ids;
  };
  const std::vector<std::uint64_t> expected{2, 3, 1, 0};
  CHECK(order() == expected);
  room.list_grown();
  CHECK(room.active().front() == &room.tenant(2));
  CHECK(order() == expected);
}

// rule: scheduler.cost-follows-the-running
TEST_CASE("a plan that passes over tenants whose counters have grown lists them again, so that the next need not") {
  SchedulerState state({.max_sequences = 1, .order = ServiceOrder::fair}, {.num_blocks = 64, .block_size = 4});
  constexpr std::uint64_t kTenants = 40;
  for (std::uint64_t i = 0; i < kTenants; ++i) {
    SchedulerRequest request;
    request.id = RequestId{i + 1};
    request.tenant = i;
    request.prompt = {1, 2, 3};
    request.max_tokens = 4;
    state.submit(request);
  }
  for (std::uint64_t i = 0; i + 1 < kTenants; ++i) state.waiting.tenant(i).served = 100.0;
  const auto is_listed_right = [](const Tenant& tenant) { return tenant.listed == tenant.served; };
  CHECK_FALSE(is_listed_right(*state.waiting.active().front()));
  Draft draft(state);
  draft.decide();
  StepPlan plan;
  draft.draw_up(plan);
  gather_memory(state, draft, plan);
  apply(state, draft, plan);
  REQUIRE(plan.sequences.size() == 1);
  CHECK(plan.sequences[0].request == RequestId{kTenants});  // of the only one whose counter has not grown
  std::uint64_t listed = 0;
  for (const Tenant* tenant = state.waiting.active().front(); tenant != nullptr; tenant = tenant->place.next) {
    CHECK(is_listed_right(*tenant));
    ++listed;
  }
  CHECK(listed == kTenants - 1);
}

// rule: scheduler.cost-follows-the-running
TEST_CASE("one that waits and does not fit is tried once in a plan, however many of lower priorities run") {
  const auto tries = [](std::uint64_t lower) {
    fake::Planned service({.watermark = 0, .order = ServiceOrder::priority},
                          {.num_blocks = 64, .block_size = 4, .prefix_hash = counting_hash});
    const auto submit = [&](std::uint64_t id, std::int32_t priority, std::uint32_t prompt) {
      SchedulerRequest request = fake::request(id, prompt, 8, 1000);
      request.priority = priority;
      service.submit(request);
    };
    submit(1, 5, 160);
    for (std::uint64_t id = 2; id < 2 + lower; ++id) submit(id, 0, 2);
    service.next();
    submit(99, 3, 120);  // more than is left beside the first, whoever else goes
    lookups = 0;
    const StepPlan plan = service.next();
    CHECK(plan.preempted.empty());
    CHECK(plan.sequences.size() == 1 + lower);
    return lookups;
  };
  CHECK(tries(2) == 1);
  CHECK(tries(16) == 1);
}

TEST_CASE("samples that begin alike are found by comparing every token about once") {
  const auto compared = [](std::uint32_t samples, std::uint32_t outputs) {
    ForkFinder finder;
    finder.reserve(samples);
    Request request;
    request.limits.prompt_size = 5;
    request.prompt.assign(5, 7);
    request.progress.sampled = true;
    request.samples.resize(samples);
    for (std::uint32_t k = 0; k < samples; ++k) {
      request.samples[k].tokens.assign(outputs, 7);  // all alike but for a token in the middle
      request.samples[k].tokens[outputs / 2] = static_cast<TokenId>(k);
    }
    return static_cast<double>(finder.find(request)) / samples;
  };
  CHECK(compared(256, 1000) <= 1.1 * compared(16, 1000));
  CHECK(compared(256, 1000) <= 1000.0);
}

TEST_CASE("samples fork from the first of those before them with which they have most in common") {
  std::mt19937 random(11);
  ForkFinder finder;
  finder.reserve(12);
  for (int round = 0; round < 3000; ++round) {
    Request request;
    request.limits.prompt_size = 1 + random() % 4;
    request.progress.sampled = true;
    request.prompt.assign(request.limits.prompt_size, 1);
    request.samples.resize(2 + random() % 11);
    for (Sample& sample : request.samples) {
      for (std::uint32_t i = 0, size = 1 + random() % 8; i < size; ++i) {
        sample.tokens.push_back(static_cast<TokenId>(random() % 2));
      }
      if (random() % 5 == 0) sample.finish = FinishReason::stop;
    }
    request.samples[random() % request.samples.size()].finish = FinishReason::none;
    finder.find(request);
    for (std::uint32_t k = 0; k < request.samples.size(); ++k) {
      const Sample& sample = request.samples[k];
      if (sample.is_finished()) continue;
      std::uint32_t longest = 0, parent = 0;
      for (std::uint32_t j = 0; j < k; ++j) {
        const Sample& other = request.samples[j];
        if (other.is_finished()) continue;
        std::uint32_t common = 0;
        while (common + 1 < request.size(sample) && common + 1 < request.size(other) &&
               request.token(sample, common) == request.token(other, common)) {
          ++common;
        }
        if (common <= longest) continue;
        longest = common;
        parent = j;
      }
      REQUIRE(sample.fork_length == longest);
      if (longest > 0) REQUIRE(sample.fork_parent == parent);
    }
  }
}

// rule: scheduler.cost-follows-the-running
TEST_CASE("registered prefixes are counted when they come and go, not when somebody asks") {
  SchedulerState state({}, {.num_blocks = 64, .block_size = 4});
  const auto pin = [&](std::uint64_t id, const std::vector<BlockId>& table) -> PinnedPrefix& {
    auto prefix = std::make_unique<PinnedPrefix>();
    prefix->id = PrefixId{id};
    prefix->blocks = table.size();
    state.prefixes.reserve(64);
    PinnedPrefix& added = state.prefixes.add(std::move(prefix));
    // Of a sequence that the cache does not know: whoever looked at its table would fail.
    state.prefixes.hold(added, SequenceId{1000 + id}, table);
    return added;
  };
  const std::vector<BlockId> first{BlockId{3}, BlockId{4}, kNoBlock}, second{BlockId{3}, BlockId{5}};
  PinnedPrefix& one = pin(1, first);
  pin(2, second);
  CHECK(state.gauges().prefixes == 2);
  CHECK(state.gauges().blocks_pinned == 3);
  CHECK(state.prefixes.find(PrefixId{1}) == &one);
  state.prefixes.erase(one, first);
  CHECK(state.gauges().blocks_pinned == 2);
  CHECK(state.prefixes.blocks() == 2);
  CHECK(state.prefixes.find(PrefixId{1}) == nullptr);
}
