// Fairness between tenants: the published bound on the difference of their service (Sheng et al., OSDI 2024, theorem
// 4.4), on a step by step account that is kept here; what being idle is worth; and that no capacity is wasted for it.
#include <doctest/doctest.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>
#include <vector>

#include "scheduler/policy/order.hpp"
#include "scheduler/waiting.hpp"
#include "service.hpp"

using namespace pagedcore;

namespace {

constexpr double kPromptWeight = 1.0, kOutputWeight = 2.0;

/// Service of tenants, step by step: a prompt when it comes in, outputs as they come.
struct Account : fake::Service {
  using Service::Service;

  void submit(std::uint64_t tenant, std::uint32_t prompt, std::uint32_t max_tokens) {
    SchedulerRequest request;
    request.id = RequestId{++last};
    request.arrival = static_cast<double>(last);
    request.tenant = tenant;
    request.max_tokens = max_tokens;
    for (std::uint32_t i = 0; i < prompt; ++i) request.prompt.push_back(static_cast<TokenId>((7 * last + i) % 1000));
    waiting[tenant].insert(last);
    Service::submit(request);
    longest = std::max(longest, prompt);
  }

  void step() {
    const StepPlan plan = scheduler.plan(0.0);
    for (const RequestId id : plan.preempted) waiting[requests.at(raw(id)).tenant].insert(raw(id));
    for (const ScheduledSequence& s : plan.sequences) {
      const SchedulerRequest& request = requests.at(raw(s.request));
      waiting[request.tenant].erase(raw(s.request));
      if (charged.insert(raw(s.request)).second) {
        service[request.tenant] += kPromptWeight * static_cast<double>(request.prompt.size());
      }
      service[request.tenant] += kOutputWeight * s.num_samples;
    }
    rows = plan.tokens.size();
    if (!plan.empty()) scheduler.commit(executor.run(plan));
    scheduler.check();
  }

  /// 2 max(w_p L_input, w_q M).
  double bound() const {
    const KvCacheConfig& cache = scheduler.cache().config();
    return 2.0 * std::max(kPromptWeight * longest, kOutputWeight * cache.num_blocks * cache.block_size);
  }

  std::uint64_t last = 0;
  std::uint32_t longest = 0;
  std::size_t rows = 0;
  std::set<std::uint64_t> charged;
  std::map<std::uint64_t, double> service;
  std::map<std::uint64_t, std::set<std::uint64_t>> waiting;
};

/// The largest difference, over all intervals of steps, between what two tenants get while both have requests waiting.
/// The first asks for much at once, the other one a little later.
double largest_difference(Account& account) {
  std::mt19937 random(1);
  const auto some = [&](std::uint64_t tenant, int count) {
    for (int i = 0; i < count; ++i) {
      // Long prompts with short outputs against the opposite.
      const auto prompt = static_cast<std::uint32_t>(tenant == 0 ? 20 + random() % 60 : 2 + random() % 10);
      const auto output = static_cast<std::uint32_t>(tenant == 0 ? 1 + random() % 10 : 20 + random() % 40);
      account.submit(tenant, prompt, output);
    }
  };
  some(0, 150);
  for (int i = 0; i < 20; ++i) account.step();
  some(1, 150);
  double lowest = 0.0, highest = 0.0, worst = 0.0;
  const double start = account.service[0] - account.service[1];
  while (!account.waiting[0].empty() && !account.waiting[1].empty()) {
    account.step();
    const double difference = account.service[0] - account.service[1] - start;
    lowest = std::min(lowest, difference);
    highest = std::max(highest, difference);
    worst = highest - lowest;
  }
  return worst;
}

constexpr KvCacheConfig kCache{.num_blocks = 48, .block_size = 4, .enable_prefix_caching = false};

}  // namespace

// rule: scheduler.fair-within-the-bound
TEST_CASE("two tenants with a backlog are served alike, within the published bound") {
  for (const AdmissionPolicy admission :
       {AdmissionPolicy::known, AdmissionPolicy::watermark, AdmissionPolicy::never_evict, AdmissionPolicy::adaptive}) {
    CAPTURE(static_cast<int>(admission));
    Account fair({.max_batched_tokens = 64, .order = ServiceOrder::fair, .admission = admission}, kCache);
    const double difference = largest_difference(fair);
    CHECK(difference <= fair.bound());
    CHECK(fair.service[1] > 4 * fair.bound());  // it went on for long enough to tell
    fair.finish();
    Account fcfs({.max_batched_tokens = 64, .admission = admission}, kCache);
    CHECK(largest_difference(fcfs) > 4 * fcfs.bound());
    fcfs.finish();
  }
}

// rule: scheduler.fair-within-the-bound
TEST_CASE("a tenant that comes back is no richer for having been away") {
  Account account({.max_batched_tokens = 64, .order = ServiceOrder::fair}, kCache);
  account.submit(1, 10, 10);
  for (int i = 0; i < 400; ++i) account.submit(0, 10, 20);
  for (int i = 0; i < 800; ++i) account.step();
  REQUIRE(account.service[0] > 5 * account.bound());
  REQUIRE(account.waiting[1].empty());
  for (int i = 0; i < 400; ++i) account.submit(1, 10, 20);
  const double before = account.service[0];
  const double owed = account.service[1];
  for (int i = 0; i < 400 && !account.waiting[0].empty(); ++i) {
    account.step();
    const double gained = account.service[1] - owed - (account.service[0] - before);
    CHECK(std::abs(gained) <= account.bound());
  }
  CHECK(account.service[1] - owed > account.bound());
}

TEST_CASE("fairness wastes no capacity: one tenant alone is served as by order of arrival") {
  std::vector<std::size_t> rows[2];
  for (const bool fair : {false, true}) {
    Account account({.max_batched_tokens = 64,
                     .order = fair ? ServiceOrder::fair : ServiceOrder::fcfs,
                     .admission = AdmissionPolicy::never_evict},
                    kCache);
    for (std::uint32_t i = 0; i < 60; ++i) account.submit(3, 5 + i % 30, 5 + i % 17);
    while (account.scheduler.has_work()) {
      account.step();
      rows[fair].push_back(account.rows);
    }
  }
  CHECK(rows[0] == rows[1]);
}

TEST_CASE("weights say what a token is worth") {
  // Two tenants with equal outputs. Where prompts count, the one with the short ones gets many more requests in.
  const auto lead = [](double prompt_weight) {
    Account account({.max_batched_tokens = 256, .order = ServiceOrder::fair, .prompt_weight = prompt_weight}, kCache);
    for (int i = 0; i < 60; ++i) account.submit(0, 40, 8);
    for (int i = 0; i < 60; ++i) account.submit(1, 4, 8);
    for (int i = 0; i < 60; ++i) account.step();
    REQUIRE(!account.waiting[1].empty());
    return static_cast<double>(account.waiting[0].size()) - static_cast<double>(account.waiting[1].size());
  };
  CHECK(lead(1.0) > 2 * lead(0.0));
}

namespace {

/// Tenants whose requests come and go.
struct Room {
  sched::Request* come(std::uint64_t tenant) {
    sched::Request& request = *requests.emplace_back(std::make_unique<sched::Request>());
    request.key.order = requests.size();
    request.tenant = &room.tenant(tenant);
    ++request.tenant->requests;
    room.insert(request);
    return &request;
  }
  void go(sched::Request* request, double served) {
    room.erase(*request);
    request->tenant->served += served;
    --request->tenant->requests;
  }

  sched::WaitingRoom room;
  std::vector<std::unique_ptr<sched::Request>> requests;
};

}  // namespace

TEST_CASE("whoever comes when nobody waits begins where the last one who did has come to") {
  Room tenants;
  tenants.go(tenants.come(1), 100.0);
  tenants.go(tenants.come(2), 7.0);
  CHECK(tenants.room.tenant(2).served == 107.0);  // not 7: it had nothing to wait for while the first was served
  tenants.come(3);
  CHECK(tenants.room.tenant(3).served == 107.0);
}

TEST_CASE("a tenant that a plan has charged is passed by one that came later") {
  Room tenants;
  const sched::Request* first = tenants.come(1);
  const sched::Request* second = tenants.come(1);
  const sched::Request* other = tenants.come(2);
  sched::ServiceWalk walk;
  walk.begin(tenants.room);
  CHECK(walk.peek() == first);
  walk.pass(5.0);
  CHECK(walk.peek() == other);
  walk.pass(6.0);
  CHECK(walk.peek() == second);
}

TEST_CASE("tenants that would be lifted anyway are forgotten, others are not") {
  Room tenants;
  sched::WaitingRoom& room = tenants.room;
  const auto come = [&](std::uint64_t tenant) { return tenants.come(tenant); };
  const auto go = [&](sched::Request* request, double served) { tenants.go(request, served); };
  sched::Request* stays = come(1);
  for (std::uint64_t tenant = 2; tenant < 50; ++tenant) go(come(tenant), 100.0);  // more than tenant 1 has
  for (std::uint64_t tenant = 50; tenant < 5000; ++tenant) go(come(tenant), 0.0);
  CHECK(room.tenants().size() < 300);
  for (std::uint64_t tenant = 2; tenant < 50; ++tenant) CHECK(room.tenant(tenant).served == 100.0);
  sched::ServiceWalk walk;
  CHECK(walk.peek() == nullptr);  // nobody has begun to look
  walk.begin(room);
  CHECK(walk.peek() == stays);
  CHECK(room.size() == 1);
}
