// What a step costs by the number of running and of waiting requests, in every order of service: plan() and commit() by
// sequence, submit() by request. Compiles against any version from 0.1 on, so that two can be compared:
//
//   bench_steps                                      a table, by the clock
//   bench_steps ORDER RUNNING WAITING CHURN STEPS    one workload, for a profiler: bench/steps.py counts its
//   instructions
//
// Of the running requests CHURN end in every step and as many are submitted; one that waits takes each place.
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <utility>
#include <vector>

#include "pagedcore/scheduler.hpp"

using namespace pagedcore;

namespace {

/// Into the memory of the plan before, where the version has that.
void plan_step(auto& scheduler, StepPlan& plan) {
  if constexpr (requires { scheduler.plan(0.0, plan); }) {
    scheduler.plan(0.0, plan);
  } else {
    plan = scheduler.plan(0.0);
  }
}

}  // namespace

// A profiler collects inside of these.
extern "C" {
[[gnu::noinline]] void measured_plan(Scheduler& scheduler, StepPlan& plan) { plan_step(scheduler, plan); }
[[gnu::noinline]] void measured_commit(Scheduler& scheduler, const StepResult& result) { scheduler.commit(result); }
[[gnu::noinline]] void measured_submit(Scheduler& scheduler, SchedulerRequest& request) {
  scheduler.submit(std::move(request));
}
}

namespace {

constexpr std::uint32_t kContext = 512;  // tokens of a running request, about
constexpr std::uint32_t kPrompt = 16;    // of one that waits
constexpr const char* kOrders[] = {"fcfs", "priority", "fair"};

struct Workload {
  ServiceOrder order = ServiceOrder::fcfs;
  std::uint32_t running = 256;
  std::uint32_t waiting = 0;
  std::uint32_t churn = 0;
  std::uint32_t steps = 200;
};

/// Nanoseconds of a quick step: of ten the fastest, so that other load on the machine disturbs little.
struct Costs {
  double plan = 0.0, commit = 0.0, submit = 0.0;
  double faults = 0.0;  // of pages, by plan(): memory that is given back and taken again
};

class Bench {
 public:
  explicit Bench(const Workload& workload) : workload_(workload), scheduler_(config(workload), cache(workload)) {}

  Costs run() {
    fill();
    std::vector<double> plan_ns, commit_ns, submit_ns, faults;
    StepPlan plan;
    for (std::uint32_t step = 0; step < workload_.steps; ++step) {
      for (std::uint32_t i = 0; i < workload_.churn; ++i) {
        SchedulerRequest request = newcomer(workload_.waiting > 0 ? 1 + next_ % kLevels : 1);
        submit_ns.push_back(timed([&] { measured_submit(scheduler_, request); }));
      }
      const double before = page_faults();
      plan_ns.push_back(timed([&] { measured_plan(scheduler_, plan); }));
      faults.push_back(page_faults() - before);
      if (plan.sequences.size() != workload_.running) fail("does not run as many as it should");
      const StepResult result = sampled(plan, workload_.churn);
      commit_ns.push_back(timed([&] { measured_commit(scheduler_, result); }));
    }
    if (scheduler_.stats().waiting != workload_.waiting + workload_.churn) fail("lets others wait than it should");
    const double of_a_step = std::accumulate(faults.begin(), faults.end(), 0.0) / workload_.steps;
    return {quick(plan_ns), quick(commit_ns), quick(submit_ns), of_a_step};
  }

 private:
  using Clock = std::chrono::steady_clock;
  static constexpr std::uint32_t kLevels = 10;  // of priority, those that wait have

  static SchedulerConfig config(const Workload& workload) {
    SchedulerConfig config;
    config.max_batched_tokens = 16384;
    config.max_sequences = workload.running;
    config.order = workload.order;
    return config;
  }
  static KvCacheConfig cache(const Workload& workload) {
    KvCacheConfig cache;
    cache.num_blocks = workload.running * (kContext / 16 + 40);
    return cache;
  }

  SchedulerRequest request(std::uint32_t tokens) {
    SchedulerRequest request;
    request.id = RequestId{next_};
    request.max_tokens = 513;
    request.prompt.assign(tokens, static_cast<TokenId>(next_));
    request.tenant = next_++;  // nobody shares one
    return request;
  }
  /// One that preempts nobody.
  SchedulerRequest newcomer(std::uint32_t level) {
    SchedulerRequest made = request(kPrompt);
    made.priority = -static_cast<std::int32_t>(level);
    return made;
  }

  /// Until so many run and wait as they should, and every prompt is computed.
  void fill() {
    for (std::uint32_t i = 0; i < workload_.running; ++i) {
      scheduler_.submit(request(kContext + i % 16));  // block boundaries are spread over the steps
    }
    StepPlan plan;
    do {
      advance(plan);
    } while (plan.tokens.size() != workload_.running || scheduler_.stats().waiting > 0);
    for (std::uint32_t i = 0; i < workload_.waiting; ++i) {  // best first, which any order takes in quickly
      scheduler_.submit(newcomer(1 + static_cast<std::uint32_t>(std::uint64_t{i} * kLevels / workload_.waiting)));
    }
  }
  void advance(StepPlan& plan) {
    plan_step(scheduler_, plan);
    scheduler_.commit(sampled(plan, 0));
  }

  /// The first `ended` sequences end.
  static StepResult sampled(const StepPlan& plan, std::uint32_t ended) {
    StepResult result;
    result.step = plan.step;
    result.tokens.reserve(plan.sequences.size());
    for (const ScheduledSequence& work : plan.sequences) {
      if (work.num_samples == 0) continue;
      result.tokens.push_back({work.sequence, work.first_sample, 7, result.tokens.size() < ended});
    }
    return result;
  }

  static double page_faults() {
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    return static_cast<double>(usage.ru_minflt);
  }
  template <class Work>
  static double timed(const Work& work) {
    const auto start = Clock::now();
    work();
    return std::chrono::duration<double, std::nano>(Clock::now() - start).count();
  }
  static double quick(std::vector<double>& values) {
    if (values.empty()) return 0.0;
    const auto at = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 10);
    std::ranges::nth_element(values, at);
    return *at;
  }
  [[noreturn]] void fail(const char* what) const {
    std::fprintf(stderr, "the workload %s\n", what);
    std::exit(1);
  }

  Workload workload_;
  Scheduler scheduler_;
  std::uint32_t next_ = 1;
};

void print(const Workload& workload) {
  const Costs costs = Bench(workload).run();
  std::printf("%9s %8u %8u %6u %10.1f %10.1f %10.1f %10.1f\n", kOrders[static_cast<int>(workload.order)],
              workload.running, workload.waiting, workload.churn, costs.plan / workload.running,
              costs.commit / workload.running, costs.submit, costs.faults);
  std::fflush(stdout);
}

ServiceOrder order_of(const char* name) {
  for (int i = 0; i < 3; ++i) {
    if (std::strcmp(kOrders[i], name) == 0) return static_cast<ServiceOrder>(i);
  }
  std::fprintf(stderr, "%s is none of fcfs, priority and fair\n", name);
  std::exit(2);
}

std::uint32_t number(const char* text) { return static_cast<std::uint32_t>(std::strtoul(text, nullptr, 10)); }

}  // namespace

int main(int argc, char** argv) {
  if (argc == 6) {
    print({order_of(argv[1]), number(argv[2]), number(argv[3]), number(argv[4]), number(argv[5])});
    return 0;
  }
  std::printf("Nanoseconds, of ten steps the fastest: plan and commit by running sequence, submit by request;\n");
  std::printf("faults: of pages, by plan()\n");
  std::printf("%9s %8s %8s %6s %10s %10s %10s %10s\n", "order", "running", "waiting", "churn", "plan", "commit",
              "submit", "faults");
  for (const ServiceOrder order : {ServiceOrder::fcfs, ServiceOrder::priority, ServiceOrder::fair}) {
    for (const std::uint32_t churn : {0u, 1u}) {  // of 256
      for (const std::uint32_t running : {256u, 4096u}) {
        for (const std::uint32_t waiting : {0u, 100'000u}) {
          print({order, running, waiting, churn * running / 256, running == 256 ? 300u : 60u});
        }
      }
    }
  }
}
