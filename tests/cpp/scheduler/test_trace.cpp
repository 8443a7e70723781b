// Traces: what was recorded replays to the same plans, and a changed, cut or foreign file is told apart.
#include <doctest/doctest.h>
#include <sys/resource.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <locale>
#include <random>
#include <sstream>
#include <string>

#include "fake_executor.hpp"
#include "pagedcore/error.hpp"
#include "pagedcore/trace.hpp"

using namespace pagedcore;

namespace {

struct TemporaryFile {
  std::string path =
      (std::filesystem::temp_directory_path() / ("pagedcore-trace-" + std::to_string(std::random_device{}()) + ".txt"))
          .string();
  ~TemporaryFile() { std::filesystem::remove(path); }
  std::string text() const {
    std::ifstream in(path);
    std::stringstream all;
    all << in.rdbuf();
    return all.str();
  }
  void write(const std::string& text) const { std::ofstream(path) << text; }
};

/// A run with several samples, a tight cache, an abort and a forced preemption. Returns the number of steps.
std::uint64_t record(const std::string& path, ServiceOrder order = ServiceOrder::fcfs,
                     AdmissionPolicy admission = AdmissionPolicy::known) {
  const SchedulerConfig config{.max_batched_tokens = 16,
                               .max_sequences = 8,
                               .order = order,
                               .admission = admission,
                               .victim = VictimPolicy::last_arrival,
                               .output_weight = 1.5};
  const KvCacheConfig cache{.num_blocks = 40, .block_size = 4, .windows = {0, 6}, .num_swap_blocks = 30};
  Scheduler scheduler(config, cache);
  TraceWriter trace(path, config, cache);
  const PreemptionCosts costs{1e-3, 1e-5, 2e-5};
  scheduler.set_preemption_costs(costs);
  trace.set_preemption_costs(costs);
  SchedulerRequest prefix{.id = RequestId{100}, .arrival = 0.0, .prompt = {1, 1, 1, 1, 1, 1}};
  scheduler.register_prefix(PrefixId{3}, prefix);
  trace.register_prefix(PrefixId{3}, prefix);
  fake::Executor executor(cache, 0);
  for (std::uint64_t i = 1; i <= 6; ++i) {
    SchedulerRequest request{.id = RequestId{i}, .arrival = 0.1 * static_cast<double>(i), .prompt = {}};
    request.prompt.assign(5 + 3 * i, static_cast<TokenId>(i % 2));
    request.num_samples = i == 2 ? 3 : 1;
    request.max_tokens = 9;
    request.priority = i == 4 ? -7 : static_cast<std::int32_t>(i % 3);
    request.tenant = i % 2 == 0 ? 0 : ~std::uint64_t{0};
    if (i == 5) {
      request.beam_width = executor.searches[i].width = 3;
      executor.searches[i].max_tokens = 9;
    }
    if (i == 3) request.prefix = PrefixId{3};
    scheduler.submit(request);
    trace.submit(request);
  }
  std::uint64_t steps = 0;
  while (scheduler.has_work()) {
    REQUIRE(steps < 1000);
    if (steps == 4 && scheduler.force_preempt(RequestId{1})) {
      trace.force_preempt(RequestId{1});
    }
    if (steps == 7 && scheduler.force_preempt(RequestId{2}, PreemptionMode::swap)) {
      trace.force_preempt(RequestId{2}, PreemptionMode::swap);
    }
    if (steps == 8) {
      scheduler.release_prefix(PrefixId{3});
      trace.release_prefix(PrefixId{3});
    }
    if (steps == 6 && scheduler.abort(RequestId{3})) trace.abort(RequestId{3});
    const double now = 0.7 * static_cast<double>(++steps);
    const StepPlan plan = scheduler.plan(now);
    trace.plan(now, plan);
    if (plan.empty()) {
      REQUIRE(!plan.preempted.empty());
      continue;
    }
    const StepResult result = executor.run(plan);
    const std::vector<SampleUpdate> updates = scheduler.commit(result);
    trace.commit(result);
    for (const SampleUpdate& update : updates) {
      const std::vector<TokenId> run{2, 0, 1};
      if (update.token != 1) continue;
      const std::uint32_t taken = scheduler.extend(update.request, update.sample, run, steps % 2 == 0);
      if (taken > 0) trace.extend(update.request, update.sample, std::span(run).first(taken), steps % 2 == 0);
    }
  }
  CHECK(trace.error().empty());
  CHECK(scheduler.stats().preemptions_swap > 0);
  CHECK(scheduler.stats().tokens_jumped > 0);
  return steps;
}

}  // namespace

// rule: scheduler.trace-replays
TEST_CASE("a trace replays to the same plans") {
  const TemporaryFile file;
  const std::uint64_t steps = record(file.path);
  const TraceReplay replay = replay_trace(file.path);
  CHECK(replay.steps == steps);
  CHECK(replay.requests == 6);
  CHECK(replay.is_complete);
  CHECK(replay.difference.empty());
}

TEST_CASE("policies, priorities and tenants are part of a trace") {
  for (const ServiceOrder order : {ServiceOrder::fcfs, ServiceOrder::priority, ServiceOrder::fair}) {
    for (const AdmissionPolicy admission : {AdmissionPolicy::known, AdmissionPolicy::watermark,
                                            AdmissionPolicy::never_evict, AdmissionPolicy::adaptive}) {
      const TemporaryFile file;
      const std::uint64_t steps = record(file.path, order, admission);
      const TraceReplay replay = replay_trace(file.path);
      CHECK(replay.steps == steps);
      CHECK(replay.difference.empty());
    }
  }
  // They matter: the same trace under another order comes out otherwise.
  const TemporaryFile file;
  record(file.path, ServiceOrder::priority);
  std::string text = file.text();
  const std::string priority = " order=priority ";
  const std::size_t at = text.find(priority);
  REQUIRE(at < text.find("\ncache "));
  text.replace(at, priority.size(), " order=fcfs ");
  file.write(text);
  CHECK(!replay_trace(file.path).difference.empty());
  text.replace(at, 12, " order=ninth ");
  file.write(text);
  CHECK_THROWS_WITH_AS(replay_trace(file.path),
                       doctest::Contains("line 2: order = 'ninth' is not one of fcfs, priority, fair"), Corrupt);
  text.replace(at, 13, " oder=fair ");
  file.write(text);
  CHECK_THROWS_WITH_AS(replay_trace(file.path),
                       doctest::Contains("line 2: scheduler has no 'oder'; did you mean 'order'?"), Corrupt);
  text.replace(at, 11, " order ");
  file.write(text);
  CHECK_THROWS_WITH_AS(replay_trace(file.path), doctest::Contains("line 2: 'order' is not name=value"), Corrupt);
}

TEST_CASE("another arrival, another plan: the difference names the line") {
  const TemporaryFile file;
  record(file.path);
  std::string text = file.text();
  const std::string first = "\nsubmit id=1 arrival=0.1 ";
  const std::size_t at = text.find(first);
  REQUIRE(at != std::string::npos);
  text.replace(at, first.size(), "\nsubmit id=1 arrival=9.1 ");  // now the latest
  file.write(text);
  const TraceReplay replay = replay_trace(file.path);
  CHECK(replay.difference.find("line ") == 0);
  CHECK(replay.difference.find("recorded: ") != std::string::npos);
  CHECK(replay.steps == 1);
}

TEST_CASE("a trace that is cut off replays up to there") {
  const TemporaryFile file;
  const std::uint64_t steps = record(file.path);
  const std::string text = file.text();
  file.write(text.substr(0, text.size() - 3));
  const TraceReplay replay = replay_trace(file.path);
  CHECK(!replay.is_complete);
  CHECK(replay.steps == steps);  // the last line is a result
}

TEST_CASE("what is no trace is refused with its line") {
  const TemporaryFile file;
  CHECK_THROWS_AS(replay_trace(file.path), Io);
  file.write("");
  CHECK_THROWS_AS(replay_trace(file.path), Corrupt);
  file.write("hello\n");
  CHECK_THROWS_WITH_AS(replay_trace(file.path), doctest::Contains("line 1"), Corrupt);
  std::filesystem::remove(file.path);  // a trace is a new file
  record(file.path);
  file.write(file.text() + "commit x\n");
  CHECK_THROWS_WITH_AS(replay_trace(file.path), doctest::Contains("'x' is no number of its kind"), Corrupt);
  CHECK_THROWS_WITH_AS(TraceWriter("no such folder/trace", {}, {.num_blocks = 1}), doctest::Contains("no such folder"),
                       Io);
}

TEST_CASE("a full disk ends the trace, not the run") {
  // Files of this process may not grow past 4 KiB, and the signal that says so is ignored.
  const TemporaryFile file;
  TraceWriter trace(file.path, {}, {.num_blocks = 1});
  struct rlimit old {};
  REQUIRE(::getrlimit(RLIMIT_FSIZE, &old) == 0);
  auto* handler = std::signal(SIGXFSZ, SIG_IGN);
  const struct rlimit small { 4096, old.rlim_max };
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &small) == 0);
  StepPlan plan;
  plan.preempted.resize(100000);
  trace.plan(0.0, plan);
  ::setrlimit(RLIMIT_FSIZE, &old);
  std::signal(SIGXFSZ, handler);
  CHECK(trace.error().find(file.path + ": the trace ends here") == 0);
  trace.plan(0.0, plan);  // ignored
}

TEST_CASE("a trace does not depend on the locale of the process") {
  struct Comma final : std::numpunct<char> {
    char do_decimal_point() const override { return ','; }
    char do_thousands_sep() const override { return '.'; }
    std::string do_grouping() const override { return "\1"; }
  };
  const TemporaryFile plain, foreign;
  record(plain.path);
  const std::locale before = std::locale::global(std::locale(std::locale(), new Comma));
  record(foreign.path);
  const TraceReplay replay = replay_trace(plain.path);
  std::locale::global(before);
  CHECK(replay.difference.empty());
  CHECK(replay.requests == 6);
  CHECK(foreign.text() == plain.text());
}

TEST_CASE("the lines of plans and results are those of version 2") {
  const TemporaryFile file;
  {
    TraceWriter trace(file.path, {}, {.num_blocks = 1});
    StepPlan plan;
    plan.step = StepId{1};
    plan.sequences = {{RequestId{1}, SequenceId{1}, 0, 1, 0, 5, 0, 0, 0, 2}};
    plan.copies = {{BlockId{3}, BlockId{4}, 2}};
    trace.plan(0.1, plan);
    trace.commit({StepId{1}, {{SequenceId{1}, 0, 7, true}}, {}, {{RequestId{2}, {{1, 9}}}}});
  }
  const std::string text = file.text();
  CHECK(text.find("\nplan 0.10000000000000001 step 1 copies 1 3 4 2 sequences 1 1 1 0 1 5 0 0 2 preempted 0 digest "
                  "14695981039346656037\ncommit 1 1 1 0 7 1 0 1 2 1 1 9 0\n") != std::string::npos);
}
