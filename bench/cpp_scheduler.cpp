// What the bookkeeping costs: plan() + commit() of a step of running decodes, and each block operation of the KV cache.
// Every figure is the best of several repetitions, so that other load on the machine disturbs it little.
// `bench_scheduler SEQUENCES CONTEXT` makes the steps of that size alone, for a profiler.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <vector>

#include "pagedcore/kv_cache.hpp"
#include "pagedcore/scheduler.hpp"

using namespace pagedcore;

namespace {

using Clock = std::chrono::steady_clock;

double nanoseconds(Clock::duration duration) { return std::chrono::duration<double, std::nano>(duration).count(); }

/// Best nanoseconds of `work` over `repetitions`; `setup` is not timed.
template <class Setup, class Work>
double best(int repetitions, Setup&& setup, Work&& work) {
  double fastest = std::numeric_limits<double>::max();
  for (int i = 0; i < repetitions; ++i) {
    setup();
    const auto start = Clock::now();
    work();
    fastest = std::min(fastest, nanoseconds(Clock::now() - start));
  }
  return fastest;
}

StepResult sample_all(const StepPlan& plan) {
  StepResult result{.step = plan.step, .tokens = {}, .failed = {}, .beams = {}};
  result.tokens.reserve(plan.sequences.size());
  for (const ScheduledSequence& work : plan.sequences) {
    for (std::uint32_t k = 0; k < work.num_samples; ++k) result.tokens.push_back({work.sequence, k, 7, false});
  }
  return result;
}

/// Steady decoding of `sequences` requests at a context of about `context` tokens.
void bench_steps(std::uint32_t sequences, std::uint32_t context) {
  Scheduler scheduler({.max_batched_tokens = 64 * sequences, .max_sequences = sequences},
                      {.num_blocks = sequences * (context / 16 + 40), .block_size = 16});
  for (std::uint32_t i = 0; i < sequences; ++i) {
    SchedulerRequest request;
    request.id = RequestId{i};
    request.max_tokens = 513;
    request.prompt.assign(context + i % 16, static_cast<TokenId>(i));  // block boundaries are spread over the steps
    scheduler.submit(std::move(request));
  }
  // Until every prompt is computed; then each step is `sequences` rows.
  StepPlan plan;  // kept for its memory, as an engine does
  std::size_t rows = 0;
  do {
    scheduler.plan(0.0, plan);
    rows = plan.tokens.size();
    scheduler.commit(sample_all(plan));
  } while (scheduler.stats().waiting > 0 || rows != sequences);

  std::vector<double> plan_ns, commit_ns;
  for (int i = 0; i < 300; ++i) {
    const auto start = Clock::now();
    scheduler.plan(0.0, plan);
    plan_ns.push_back(nanoseconds(Clock::now() - start));
    const StepResult result = sample_all(plan);
    const auto sampled = Clock::now();
    scheduler.commit(result);
    commit_ns.push_back(nanoseconds(Clock::now() - sampled));
  }
  const auto at = [](std::vector<double>& ns, double share) {
    std::ranges::sort(ns);
    return ns[static_cast<std::size_t>(share * static_cast<double>(ns.size() - 1))] / 1000.0;
  };
  const double planned = at(plan_ns, 0.05), committed = at(commit_ns, 0.05);
  std::printf("%9u %9u %9.1f %9.1f %9.1f %9.1f %9.1f\n", sequences, context, planned, at(plan_ns, 0.5), committed,
              at(commit_ns, 0.5), (planned + committed) * 1000.0 / sequences);
}

/// Nanoseconds per block of the manager's operations, on sequences of `blocks` blocks.
void bench_blocks(std::uint32_t blocks) {
  constexpr std::uint32_t kBlockSize = 16;
  constexpr std::uint64_t kSequences = 64;
  const std::uint32_t length = blocks * kBlockSize;
  KvCacheManager kv({.num_blocks = blocks * 64 * 2, .block_size = kBlockSize});
  std::vector<BlockCopy> copies;
  std::vector<TokenId> tokens(length);
  const double total = static_cast<double>(blocks * kSequences);
  const auto each = [&](auto&& call) {
    for (std::uint64_t i = 0; i < kSequences; ++i) call(i);
  };
  const auto create = [&] {
    kv.clear_prefix_cache();
    each([&](std::uint64_t i) { kv.create(SequenceId{i}, 0, {}); });
  };
  const auto append = [&] { each([&](std::uint64_t i) { kv.append(SequenceId{i}, length, copies); }); };
  const auto fork = [&] { each([&](std::uint64_t i) { kv.fork(SequenceId{i}, SequenceId{1000 + i}, length); }); };
  const auto free = [&] { each([&](std::uint64_t i) { kv.free(SequenceId{i}, StepId{0}); }); };
  const auto free_forks = [&] { each([&](std::uint64_t i) { kv.free(SequenceId{1000 + i}, StepId{0}); }); };
  const auto publish = [&] {
    each([&](std::uint64_t i) {
      tokens[0] = static_cast<TokenId>(i);
      kv.publish(SequenceId{i}, tokens, length);
    });
  };
  std::size_t hits = 0;
  const auto match = [&] {
    each([&](std::uint64_t i) {
      tokens[0] = static_cast<TokenId>(i);
      hits += kv.match_prefix(tokens, 0, length).blocks.size();
    });
  };
  bool exists = false;
  const auto fresh = [&] {
    if (exists) free();
    exists = true;
    create();
  };
  constexpr int kTimes = 50;
  const double append_ns = best(kTimes, fresh, append);
  const double publish_ns = best(
      kTimes,
      [&] {
        fresh();
        append();
      },
      publish);
  const double match_ns = best(
      kTimes, [] {}, match);
  bool forked = false;
  const double fork_ns = best(
      kTimes,
      [&] {
        if (forked) free_forks();
        forked = true;
      },
      fork);
  free_forks();
  const double free_ns = best(
      kTimes,
      [&] {
        if (!exists) {
          create();
          append();
        }
        exists = false;
      },
      free);
  std::printf("%9u %9.1f %9.1f %9.1f %9.1f %9.1f\n", blocks, append_ns / total, fork_ns / total, free_ns / total,
              publish_ns / total, match_ns / total);
  if (hits == 0) std::printf("  (nothing matched: the match column means nothing)\n");
}

}  // namespace

int main(int argc, char** argv) {
  std::printf(
      "One step of running decodes, microseconds (5th percentile and median of 300 steps); the last column is of");
  std::printf("\nthe 5th percentiles: nanoseconds a sequence\n");
  std::printf("%9s %9s %9s %9s %9s %9s %9s\n", "sequences", "context", "plan p5", "plan p50", "commit p5", "commit p50",
              "each");
  if (argc == 3) {
    bench_steps(static_cast<std::uint32_t>(std::atoi(argv[1])), static_cast<std::uint32_t>(std::atoi(argv[2])));
    return 0;
  }
  for (const std::uint32_t context : {128u, 1024u, 4096u}) bench_steps(256, context);
  for (const std::uint32_t sequences : {1024u, 4096u}) bench_steps(sequences, 1024);
  std::printf("\nBlock operations, nanoseconds per block (best of 50), 64 sequences\n");
  std::printf("%9s %9s %9s %9s %9s %9s\n", "blocks", "append", "fork", "free", "publish", "match");
  for (const std::uint32_t blocks : {1u, 8u, 64u, 256u}) bench_blocks(blocks);
}
