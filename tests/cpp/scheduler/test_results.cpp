// Results that do not answer their plan are refused, and nothing has changed then.
#include <doctest/doctest.h>

#include <functional>
#include <vector>

#include "pagedcore/error.hpp"
#include "planned.hpp"

using namespace pagedcore;
using fake::Planned;
using fake::request;

// rule: scheduler.result-answers-the-plan
TEST_CASE("tokens that were not asked for, or come twice, or not at all, or are negative") {
  Planned service({}, {.num_blocks = 64, .block_size = 4});
  SchedulerRequest pair = request(1, 6, 8);
  pair.num_samples = 2;
  service.submit(pair);
  service.submit(request(2, 6, 8));
  for (int step = 0; step < 2; ++step) {  // the first tokens of all samples at once, then one by one
    const StepPlan plan = service.scheduler.plan(0.0);
    const StepResult result = service.executor.run(plan);
    REQUIRE(result.tokens.size() == 3);
    const auto refused = [&](const char* why, const std::function<void(StepResult&)>& change) {
      StepResult bad = result;
      change(bad);
      CHECK_THROWS_WITH_AS(service.scheduler.commit(bad), doctest::Contains(why), InvalidArgument);
      service.scheduler.check();
    };
    for (const std::size_t i : {0u, 1u, 2u}) {
      refused("the plan does not sample this one", [&](StepResult& bad) { bad.tokens[i].sample = 2; });
      refused("the plan does not sample this one", [&](StepResult& bad) { bad.tokens[i].sample = ~0u; });
      refused("never negative", [&](StepResult& bad) { bad.tokens[i].token = -1; });
      refused("comes twice", [&](StepResult& bad) { bad.tokens.push_back(bad.tokens[i]); });
      refused("is missing", [&](StepResult& bad) { bad.tokens.erase(bad.tokens.begin() + std::ptrdiff_t(i)); });
      refused("not in the plan", [&](StepResult& bad) { bad.tokens[i].sequence = SequenceId{99}; });
    }
    service.take_in(service.scheduler.commit(result));
  }
  service.finish();
  service.check_outputs();
}
