// Whatever allocation fails, submit(), plan() and commit() have changed nothing that can be observed: counters, block
// counts, tokens, and everything that comes later. A twin that never runs out of memory says what is right.
#include <doctest/doctest.h>

#include <map>
#include <new>
#include <random>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "failing_allocations.hpp"
#include "fake_executor.hpp"
#include "pagedcore/error.hpp"
#include "pagedcore/trace.hpp"
#include "scheduler/apply.hpp"

using namespace pagedcore;

// What may only do cannot fail, what may only try cannot change anything, and nothing handed out can free a sequence.
static_assert(noexcept(sched::apply(std::declval<sched::SchedulerState&>(), std::declval<const sched::Draft&>(),
                                    std::declval<StepPlan&>())));
static_assert(noexcept(sched::apply(std::declval<sched::SchedulerState&>(), std::declval<sched::Intake&>(),
                                    std::declval<const StepResult&>(), std::declval<std::vector<SampleUpdate>&>())));
static_assert(std::is_constructible_v<sched::Draft, const sched::SchedulerState&>);
static_assert(std::is_same_v<decltype(std::declval<Scheduler&>().cache()), const KvCacheManager&>);

namespace {

std::string text_of(const SchedulerStats& s) {
  std::string text;
  for (const std::uint64_t value : {s.steps,
                                    s.tokens_computed,
                                    s.tokens_sampled,
                                    s.tokens_recomputed,
                                    s.prefix_hit_tokens,
                                    s.pinned_hit_tokens,
                                    s.prefix_waits,
                                    s.preemptions_recompute,
                                    s.preemptions_swap,
                                    s.preemption_hit_tokens,
                                    s.swap_fallbacks,
                                    s.blocks_swapped_out,
                                    s.blocks_swapped_in,
                                    s.forks,
                                    s.block_copies,
                                    std::uint64_t{s.waiting},
                                    std::uint64_t{s.running},
                                    std::uint64_t{s.swapped},
                                    std::uint64_t{s.prefixes},
                                    std::uint64_t{s.blocks_pinned},
                                    s.tokens_cached,
                                    s.slots_unused,
                                    s.slots_reserved,
                                    s.slots_overreserved}) {
    text += std::to_string(value) + ' ';
  }
  return text;
}

std::string text_of(const KvCacheCounts& c) {
  std::string text;
  for (const std::uint32_t value :
       {c.total, c.free, c.cached, c.in_flight, c.used, c.shared, c.swap_total, c.swapped, c.reserved}) {
    text += std::to_string(value) + ' ';
  }
  return text;
}

/// Everything that can be asked of a scheduler.
std::string observed(const Scheduler& scheduler, std::uint64_t last_id) {
  std::string text = text_of(scheduler.stats()) + text_of(scheduler.cache().counts());
  for (std::uint64_t id = 1; id <= last_id; ++id) {
    for (std::uint32_t sample = 0; sample < 4; ++sample) {
      text += '|';
      for (const TokenId token : scheduler.tokens(RequestId{id}, sample)) text += std::to_string(token) + ' ';
    }
  }
  return text;
}

struct Setting {
  const char* name;
  SchedulerConfig config;
  KvCacheConfig cache;
};

std::vector<Setting> settings() {
  SchedulerConfig base;
  base.max_batched_tokens = 24;
  base.max_sequences = 8;
  base.watermark = 0;
  KvCacheConfig swaps;
  swaps.num_blocks = 14;
  swaps.block_size = 4;
  swaps.num_swap_blocks = 10;
  std::vector<Setting> all{{"fcfs", base, swaps}};
  all.push_back({"priority", base, swaps});
  all.back().config.order = ServiceOrder::priority;
  all.push_back({"fair, adaptive", base, swaps});
  all.back().config.order = ServiceOrder::fair;
  all.back().config.admission = AdmissionPolicy::adaptive;
  all.push_back({"never_evict", base, swaps});
  all.back().config.admission = AdmissionPolicy::never_evict;
  all.push_back({"recompute, watermark", base, swaps});
  all.back().config.preemption = PreemptionMode::recompute;
  all.back().config.admission = AdmissionPolicy::watermark;
  all.back().config.watermark = 0.1;
  all.push_back({"windows", base, swaps});
  all.back().cache.windows = {0, 6};
  all.back().cache.num_blocks = 30;
  all.push_back({"no prefix caching", base, swaps});
  all.back().cache.enable_prefix_caching = false;
  all.push_back({"contiguous", base, {}});
  all.back().cache.num_blocks = 32;
  all.back().cache.block_size = 4;
  all.back().cache.allocation = AllocationPolicy::pow2;
  all.back().cache.max_reservation = 64;
  return all;
}

class Twins {
 public:
  Twins(const Setting& setting, std::uint64_t seed)
      : random_(seed),
        failing_(setting.config, setting.cache),
        sound_(setting.config, setting.cache),
        executor_(setting.cache, 9) {}

  void serve(int ops) {
    for (int i = 0; i < ops; ++i) {
      const std::uint64_t what = pick(12);
      if (what < 3) submit();
      if (what == 3 && pick(3) == 0) register_prefix();
      if (what == 4 && last_id_ > 0) {
        const RequestId id{1 + pick(last_id_)};
        REQUIRE(failing_.abort(id) == sound_.abort(id));
      }
      if (what == 5 && last_id_ > 0) {
        const RequestId id{1 + pick(last_id_)};
        const auto mode = static_cast<PreemptionMode>(pick(3));
        twice([&](Scheduler& s) { return s.force_preempt(id, mode); });
      }
      if (what > 5) step();
    }
  }
  long failures = 0;
  long preemptions() const {
    return static_cast<long>(failing_.stats().preemptions_recompute + failing_.stats().preemptions_swap);
  }

 private:
  std::uint64_t pick(std::uint64_t count) { return random_() % count; }

  /// Calls both, the failing one with one more allocation granted each time until it succeeds.
  template <class Call>
  std::invoke_result_t<Call, Scheduler&> twice(Call&& call) {
    const std::string before = observed(failing_, last_id_);
    for (long granted = 0;; ++granted) {
      REQUIRE(granted < 100000);
      fail_after_allocations(granted);
      try {
        auto result = call(failing_);
        fail_after_allocations(-1);
        auto expected = call(sound_);
        REQUIRE(observed(failing_, last_id_) == observed(sound_, last_id_));
        static_cast<void>(expected);
        if constexpr (std::is_same_v<decltype(result), StepPlan>) REQUIRE(to_text(result) == to_text(expected));
        return result;
      } catch (const std::bad_alloc&) {
        fail_after_allocations(-1);
      } catch (...) {
        fail_after_allocations(-1);
        throw;
      }
      ++failures;
      failing_.check();
      REQUIRE(observed(failing_, last_id_) == before);
    }
  }

  SchedulerRequest random_request() {
    SchedulerRequest request;
    request.id = RequestId{last_id_ + 1};
    request.arrival = static_cast<double>(last_id_ - last_id_ % 3);
    for (std::uint64_t i = 0, size = 1 + pick(14); i < size; ++i) {
      request.prompt.push_back(static_cast<TokenId>(pick(12) == 0));
    }
    request.priority = static_cast<std::int32_t>(pick(3));
    request.tenant = pick(4);
    return request;
  }

  void submit() {
    SchedulerRequest request = random_request();
    request.max_tokens = static_cast<std::uint32_t>(1 + pick(16));
    if (pick(4) == 0) {
      request.beam_width = static_cast<std::uint32_t>(1 + pick(3));
    } else {
      request.num_samples = static_cast<std::uint32_t>(1 + pick(3));
    }
    if (!prefix_.empty() && pick(2) == 0) {
      request.prefix = PrefixId{1};
      request.prompt.insert(request.prompt.begin(), prefix_.begin(), prefix_.end());
    }
    try {
      twice([&](Scheduler& s) {
        s.submit(request);
        return 0;
      });
    } catch (const InvalidArgument&) {
      CHECK_THROWS_AS(sound_.submit(request), InvalidArgument);
      return;
    }
    ++last_id_;
    if (request.beam_width == 0) return;
    executor_.searches[last_id_].width = request.beam_width;
    executor_.searches[last_id_].max_tokens = request.max_tokens;
  }

  void register_prefix() {
    const SchedulerRequest request = random_request();
    try {
      twice([&](Scheduler& s) {
        s.register_prefix(PrefixId{1}, request);
        return 0;
      });
    } catch (const InvalidArgument&) {
      CHECK_THROWS_AS(sound_.register_prefix(PrefixId{1}, request), InvalidArgument);
      return;
    }
    ++last_id_;
    prefix_ = request.prompt;
  }

  void step() {
    // The failing one plans into what an earlier plan or a failed attempt has left, or, where every allocation is to
    // fail once, into nothing.
    if (++steps_ % 2 == 0) kept_ = {};
    kept_ = twice([&](Scheduler& s) {
      if (&s == &sound_) return s.plan(0.0);
      s.plan(0.0, kept_);
      return std::move(kept_);
    });
    const StepPlan& plan = kept_;
    if (plan.empty()) return;
    StepResult result = executor_.run(plan);
    if (pick(20) == 0 && !plan.sequences.empty()) result.failed.push_back(plan.sequences[0].request);
    for (const SampleUpdate& update : twice([&](Scheduler& s) { return s.commit(result); })) {
      if (update.finish != FinishReason::none) executor_.searches.erase(raw(update.request));
    }
    std::erase_if(executor_.searches, [&](const auto& search) {
      return failing_.tokens(RequestId{search.first}, 0).empty();  // aborted
    });
  }

  std::mt19937_64 random_;
  Scheduler failing_, sound_;
  fake::Executor executor_;
  StepPlan kept_;
  std::uint64_t steps_ = 0;
  std::uint64_t last_id_ = 0;
  std::vector<TokenId> prefix_;
};

}  // namespace

// rule: scheduler.throw-changes-nothing
TEST_CASE("a call that runs out of memory has changed nothing, whichever allocation fails") {
  for (const Setting& setting : settings()) {
    INFO(std::string(setting.name));
    long failures = 0, preemptions = 0;
    for (std::uint64_t seed = 0; seed < 6; ++seed) {
      CAPTURE(seed);
      Twins twins(setting, seed);
      twins.serve(160);
      failures += twins.failures;
      preemptions += twins.preemptions();
    }
    CHECK(failures > 3000);
    CHECK(preemptions > 3);
  }
}

// rule: scheduler.throw-changes-nothing
TEST_CASE("a step of one token takes the memory of that token before anything changes, wherever its list must grow") {
  KvCacheConfig cache;
  cache.block_size = 16;
  cache.num_blocks = 64;
  Scheduler scheduler(SchedulerConfig{}, cache);
  fake::Executor executor(cache, 1 << 30);
  scheduler.submit({.id = RequestId{1}, .prompt = {5}, .max_tokens = 600});
  long failures = 0;
  while (!scheduler.tokens(RequestId{1}, 0).empty()) {
    const StepPlan plan = scheduler.plan(0.0);
    const StepResult result = executor.run(plan);
    const std::vector<TokenId> before = scheduler.tokens(RequestId{1}, 0);
    for (long allowed = 0;; ++allowed, ++failures) {
      fail_after_allocations(allowed);
      try {
        scheduler.commit(result);
        break;
      } catch (const std::bad_alloc&) {
        fail_after_allocations(-1);
        REQUIRE(scheduler.tokens(RequestId{1}, 0) == before);
      }
    }
    fail_after_allocations(-1);
  }
  CHECK(failures > 600);
}

// rule: scheduler.throw-changes-nothing
TEST_CASE("a failure in a step of one sample takes the memory of what it tells of all samples first") {
  KvCacheConfig cache;
  cache.block_size = 16;
  cache.num_blocks = 64;
  SchedulerConfig config;
  config.max_sequences = 1;  // samples take turns
  for (int steps = 2; steps < 6; ++steps) {
    CAPTURE(steps);
    Scheduler scheduler(config, cache);
    fake::Executor executor(cache, 1 << 30);
    scheduler.submit({.id = RequestId{1}, .prompt = {5}, .num_samples = 6, .max_tokens = 20});
    for (int step = 0; step < steps; ++step) {
      const StepPlan plan = scheduler.plan(0.0);
      StepResult result = executor.run(plan);
      if (step == steps - 1) result.failed.push_back(RequestId{1});
      std::vector<SampleUpdate> updates;
      for (long allowed = 0;; ++allowed) {
        fail_after_allocations(allowed);
        try {
          updates = scheduler.commit(result);
          break;
        } catch (const std::bad_alloc&) {
          fail_after_allocations(-1);
        }
      }
      fail_after_allocations(-1);
      if (step == steps - 1) CHECK(updates.size() == 6);
    }
    CHECK(scheduler.cache().counts().used == 0);
  }
}
