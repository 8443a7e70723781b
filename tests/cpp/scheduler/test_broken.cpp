// Books that are wrong: the scheduler that met them refuses every call from then on and says why; the process and other
// schedulers go on.
#include <doctest/doctest.h>

#include <functional>
#include <string>

#include "pagedcore/error.hpp"
#include "planned.hpp"
#include "scheduler/apply.hpp"

using namespace pagedcore;
using fake::Planned;
using fake::request;

namespace {

/// Nobody can do this but by a cast: frees a running sequence behind the scheduler's back.
void free_behind(const Scheduler& scheduler, SequenceId sequence) {
  const_cast<KvCacheManager&>(scheduler.cache()).free(sequence, StepId{0});
}

/// What Corrupt says; empty when nothing is thrown.
std::string corrupt(const std::function<void()>& call) {
  try {
    call();
  } catch (const Corrupt& error) {
    return error.what();
  }
  return {};
}

void check_refuses_everything(Scheduler& scheduler, const std::string& reason) {
  CHECK(reason.find("the scheduler is broken: ") == 0);
  CHECK(reason.find("sequence 1 ") != std::string::npos);
  CHECK(corrupt([&] { scheduler.plan(0.0); }) == reason);
  CHECK(corrupt([&] { scheduler.commit({}); }) == reason);
  CHECK(corrupt([&] { scheduler.submit(request(50, 4, 4)); }) == reason);
  CHECK(corrupt([&] { scheduler.register_prefix(PrefixId{1}, request(51, 4, 0)); }) == reason);
  CHECK(corrupt([&] { scheduler.release_prefix(PrefixId{1}); }) == reason);
  CHECK(corrupt([&] { scheduler.abort(RequestId{2}); }) == reason);
  CHECK(corrupt([&] { scheduler.force_preempt(RequestId{2}); }) == reason);
  CHECK(corrupt([&] { scheduler.take_events(); }) == reason);
  CHECK(corrupt([&] { scheduler.check(); }) == reason);
  CHECK(scheduler.has_work());
  CHECK(scheduler.stats().steps >= 1);
  scheduler.clear_prefix_cache();
  CHECK_NOTHROW(scheduler.validate(request(52, 4, 4)));  // reads the configuration only
}

/// Two running requests, one step done. The cache is asked about a sequence when its next token begins a block, and
/// told of it when that fills one.
struct Two : Planned {
  explicit Two(std::uint32_t prompt) : Planned({}, {.num_blocks = 64, .block_size = 4, .num_swap_blocks = 16}) {
    submit(request(1, prompt, 20));
    submit(request(2, prompt, 20));
    next();
  }
};

}  // namespace

// rule: scheduler.broken-not-the-process
TEST_CASE("a commit that finds a sequence gone breaks its scheduler, and no other one") {
  Two service(7), other(7);
  const StepPlan plan = service.scheduler.plan(0.0);
  const StepResult result = service.executor.run(plan);
  free_behind(service.scheduler, plan.sequences[0].sequence);
  const std::string reason = corrupt([&] { service.scheduler.commit(result); });
  check_refuses_everything(service.scheduler, reason);
  other.finish();
  other.check_outputs();
}

TEST_CASE("so does a plan that cannot be carried out") {
  sched::SchedulerState state({}, {.num_blocks = 64, .block_size = 4});
  state.submit(request(1, 6, 20));
  sched::Draft draft(state);
  draft.decide();
  StepPlan plan;
  draft.draw_up(plan);
  gather_memory(state, draft, plan);
  CHECK_NOTHROW(state.refuse_if_broken());
  state.cache.free(draft.decisions().work.at(0).sequence, StepId{0});
  apply(state, draft, plan);
  CHECK(corrupt([&] { state.refuse_if_broken(); }).find("the scheduler is broken: ") == 0);
}

TEST_CASE("so does every other call that finds a sequence gone") {
  const std::function<void(Scheduler&)> calls[] = {[](Scheduler& s) { s.abort(RequestId{1}); },
                                                   [](Scheduler& s) { s.force_preempt(RequestId{1}); },
                                                   [](Scheduler& s) {  // which does not throw: the next call does
                                                     CHECK(s.stats().steps == 1);
                                                     s.check();
                                                   }};
  for (const auto& call : calls) {
    Two service(6);
    free_behind(service.scheduler, SequenceId{1});
    check_refuses_everything(service.scheduler, corrupt([&] { call(service.scheduler); }));
  }
}

TEST_CASE("a plan that finds a sequence gone before it changes anything says so each time") {
  Two service(8);
  free_behind(service.scheduler, SequenceId{1});
  CHECK_THROWS_AS(service.scheduler.plan(0.0), Error);
  CHECK_THROWS_AS(service.scheduler.plan(0.0), Error);
}
