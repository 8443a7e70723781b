// Random service: arrivals, groups, aborts at any moment, failing requests, tiny pools, forced preemptions, with and
// without prefix caching, with good and bad hashes, under policies drawn at random. Outputs must be those of each
// request alone; blocks must add up; the order of service must be that of the policy; and everything must end.
#include <doctest/doctest.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>
#include <vector>

#include "../property_ops.hpp"
#include "fake_executor.hpp"
#include "pagedcore/error.hpp"
#include "pagedcore/scheduler.hpp"

using namespace pagedcore;

namespace {

std::uint64_t constant_hash(std::uint64_t, const TokenId*, std::size_t) noexcept { return 7; }
std::uint64_t poor_hash(std::uint64_t seed, const TokenId* tokens, std::size_t) noexcept {
  return (seed ^ static_cast<std::uint64_t>(tokens[0])) << 60;
}

struct Served {
  SchedulerRequest request;
  std::uint64_t order = 0;
  std::vector<std::vector<TokenId>> outputs;
  std::vector<bool> finished;
  std::set<std::uint32_t> scored;
  std::set<std::pair<std::uint32_t, std::uint32_t>> wanted;  // rows (sample, position) that must still be computed
  bool running = false;
  std::uint64_t turn = 0;  // fair: in which it came in

  /// Between requests that both run, or of one tenant, where the order is fair.
  bool is_before(const Served& other, ServiceOrder policy) const {
    if (policy == ServiceOrder::fair && running && other.running) return turn < other.turn;
    if (policy == ServiceOrder::priority && request.priority != other.request.priority) {
      return request.priority > other.request.priority;
    }
    return request.arrival != other.request.arrival ? request.arrival < other.request.arrival : order < other.order;
  }
};

struct Totals {
  long completed = 0, aborted = 0, failed = 0, refused = 0, preemptions = 0, hits = 0, copies = 0, forks = 0,
       jumped = 0;
};

class Machine {
 public:
  Machine(std::uint64_t seed, Totals& totals)
      : random_(seed),
        totals_(totals),
        cache_(random_cache(seed)),
        config_(random_config()),
        stop_every_(pick(3) == 0 ? 0 : 4 + pick(12)),
        scheduler_(config_, cache_),
        executor_(cache_, stop_every_) {}

  /// Random service for `ops` operations, then until all is done.
  void serve(long ops) {
    for (long i = 0; i < ops; ++i) {
      switch (pick(8)) {
        case 0:
          submit();
          break;
        case 1:
          maybe_abort();
          break;
        case 2:
          maybe_force();
          break;
        default:
          step();
      }
      scheduler_.check();
      const KvCacheCounts counts = scheduler_.cache().counts();
      REQUIRE(counts.free + counts.cached + counts.in_flight + counts.used == counts.total);
    }
    forces_ = false;
    for (long steps = 0; scheduler_.has_work(); ++steps) {
      REQUIRE(steps < 20000);
      step();
      scheduler_.check();
    }
    REQUIRE(served_.empty());
    const KvCacheCounts counts = scheduler_.cache().counts();
    REQUIRE(counts.free + counts.cached == counts.total);
    const SchedulerStats stats = scheduler_.stats();
    totals_.preemptions += static_cast<long>(stats.preemptions_recompute);
    totals_.hits += static_cast<long>(stats.prefix_hit_tokens);
    totals_.copies += static_cast<long>(stats.block_copies);
    totals_.forks += static_cast<long>(stats.forks);
    totals_.jumped += static_cast<long>(stats.tokens_jumped);
  }

 private:
  std::uint64_t pick(std::uint64_t count) { return random_() % count; }

  static KvCacheConfig random_cache(std::uint64_t seed) {
    constexpr PrefixHash kHashes[] = {nullptr, constant_hash, poor_hash};
    return {.num_blocks = static_cast<std::uint32_t>(2 + seed * 7 % 31),
            .block_size = static_cast<std::uint32_t>(1 + seed % 6),
            .enable_prefix_caching = seed % 4 != 3,
            .prefix_hash = kHashes[seed % 3]};
  }

  SchedulerConfig random_config() {
    constexpr double kWatermarks[] = {0.0, 0.01, 0.2, 1.0};
    return {.max_batched_tokens = static_cast<std::uint32_t>(1 + pick(pick(2) == 0 ? 6 : 64)),
            .max_sequences = static_cast<std::uint32_t>(1 + pick(8)),
            .max_context = static_cast<std::uint32_t>(pick(2) == 0 ? 0 : 20 + pick(40)),
            .watermark = kWatermarks[pick(4)],
            .order = static_cast<ServiceOrder>(pick(3)),
            .admission = static_cast<AdmissionPolicy>(pick(4)),
            .victim = static_cast<VictimPolicy>(pick(2)),
            .jump_ahead = pick(8) != 0};
  }

  void submit() {
    SchedulerRequest request;
    request.id = RequestId{pick(40)};  // ids come again once they are free
    request.arrival = pick(8) == 0 ? static_cast<double>(pick(last_order_ + 1)) : static_cast<double>(last_order_ + 1);
    request.prompt.resize(pick(30) + (pick(50) != 0));
    // Few distinct prompts, so that prefixes are shared.
    const bool ones = pick(2) == 0;
    for (TokenId& token : request.prompt) token = ones ? 1 : static_cast<TokenId>(pick(16) == 0);
    request.num_samples = static_cast<std::uint32_t>(pick(3) == 0 ? pick(6) : 1);
    request.max_tokens = static_cast<std::uint32_t>(pick(20));
    request.salt = pick(5) == 0;
    request.prompt_logprobs = pick(6) == 0;
    request.priority = static_cast<std::int32_t>(pick(3)) - 1;
    request.tenant = pick(3);
    try {
      scheduler_.submit(request);
    } catch (const InvalidArgument&) {
      ++totals_.refused;
      return;
    }
    REQUIRE_FALSE(served_.contains(raw(request.id)));
    Served served{
        .request = request, .order = ++last_order_, .outputs = {}, .finished = {}, .scored = {}, .wanted = {}};
    served.outputs.resize(request.num_samples);
    served.finished.resize(request.num_samples);
    served_.emplace(raw(request.id), std::move(served));
  }

  std::uint64_t any_id() { return pick(40); }

  void maybe_abort() {
    if (pick(3) != 0) return;
    const std::uint64_t id = any_id();
    REQUIRE(scheduler_.abort(RequestId{id}) == served_.contains(id));
    totals_.aborted += static_cast<long>(served_.erase(id));
  }

  void maybe_force() {
    const std::uint64_t id = any_id();
    const bool runs = served_.contains(id) && served_.at(id).running;
    REQUIRE(scheduler_.force_preempt(RequestId{id}) == runs);
    if (runs && !in_flight_) served_.at(id).running = false;
    if (runs) forced_.insert(id);
  }

  void step() {
    std::uint64_t earliest_running = ~std::uint64_t{0};
    for (const auto& [id, served] : served_) {
      if (served.running &&
          (earliest_running == ~std::uint64_t{0} || served.is_before(served_.at(earliest_running), config_.order))) {
        earliest_running = id;
      }
    }
    StepPlan plan = scheduler_.plan(0.0);
    check_plan(plan, earliest_running);
    forced_.clear();
    if (plan.empty()) {
      // All that a plan may have done is to make room for one of a higher priority.
      const bool made_room = config_.order == ServiceOrder::priority && !plan.preempted.empty();
      REQUIRE((made_room || served_.empty()));
      return;
    }
    CHECK_THROWS_AS(scheduler_.plan(0.0), InvalidArgument);

    in_flight_ = true;
    while (pick(6) == 0) {  // anything may happen while a step runs
      switch (pick(3)) {
        case 0:
          maybe_abort();
          break;
        case 1:
          if (forces_) maybe_force();
          break;
        default:
          if (forces_) submit();
      }
      scheduler_.check();
    }
    in_flight_ = false;
    StepResult result = executor_.run(plan);
    if (pick(10) == 0) std::shuffle(result.tokens.begin(), result.tokens.end(), random_);
    if (pick(10) == 0) refuse_bad(result);
    std::set<std::uint64_t> failed;
    if (pick(60) == 0) {
      const std::uint64_t id = raw(plan.sequences[pick(plan.sequences.size())].request);
      // A request that was aborted and submitted again under the same id has no part in this step.
      result.failed.push_back(RequestId{id});
      failed.insert(id);
    }
    take_in(plan, result, failed);
    for (const std::uint64_t id : forced_) {
      if (served_.contains(id)) served_.at(id).running = false;
    }
  }

  void refuse_bad(const StepResult& good) {
    StepResult bad = good;
    if (pick(2) == 0 || bad.tokens.empty()) {
      bad.step = StepId{raw(good.step) + 1};
    } else {
      bad.tokens.push_back({SequenceId{1u << 30}, 0, 0, false});
    }
    CHECK_THROWS_AS(scheduler_.commit(bad), InvalidArgument);
    scheduler_.check();
  }

  void check_plan(const StepPlan& plan, std::uint64_t earliest_running) {
    REQUIRE(plan.tokens.size() <= config_.max_batched_tokens);
    REQUIRE(plan.sequences.size() <= config_.max_sequences);
    std::set<std::uint64_t> victims;
    for (const RequestId id : plan.preempted) {
      if (!forced_.contains(raw(id))) victims.insert(raw(id));
    }
    for (const std::uint64_t id : victims) served_.at(id).running = false;
    if (config_.admission == AdmissionPolicy::never_evict) REQUIRE(victims.empty());
    std::set<std::uint64_t> admitted;
    std::set<SequenceId> sequences;
    std::uint32_t row = 0, table = 0;
    for (const ScheduledSequence& work : plan.sequences) {
      REQUIRE(sequences.insert(work.sequence).second);
      Served& served = served_.at(raw(work.request));
      REQUIRE(work.num_rows > 0);
      REQUIRE(work.first_row == row);
      REQUIRE(work.table_offset == table);
      row += work.num_rows;
      table += work.table_size;
      const auto known = scheduler_.tokens(work.request, work.first_sample);
      REQUIRE(work.first_position + work.num_rows <= known.size());
      REQUIRE(std::equal(known.begin() + work.first_position, known.begin() + work.first_position + work.num_rows,
                         plan.tokens.begin() + work.first_row));
      REQUIRE(known.size() == served.request.prompt.size() + served.outputs[work.first_sample].size());
      const bool samples = served.request.max_tokens > 0 && work.first_position + work.num_rows == known.size();
      const bool first = served.outputs[work.first_sample].empty();
      REQUIRE(work.num_samples == (!samples ? 0 : first ? served.request.num_samples : 1));
      for (std::uint32_t i = 0; i < work.num_rows; ++i)
        served.wanted.erase({work.first_sample, work.first_position + i});
      for (std::uint32_t i = 0; i < work.num_scored; ++i) served.scored.insert(work.first_position + i);
      REQUIRE((served.request.prompt_logprobs || work.num_scored == 0));
      if (!served.running) {
        admitted.insert(raw(work.request));
        served.turn = ++last_turn_;
      }
      served.running = true;
    }
    REQUIRE(row == plan.tokens.size());
    REQUIRE(table == plan.table_entries);
    REQUIRE(plan.table_entries * std::max<std::size_t>(1, cache_.windows.size()) == plan.block_tables.size());
    for (const SwappedRequest& swapped : plan.swapped_in) {
      admitted.insert(raw(swapped.request));
      served_.at(raw(swapped.request)).running = true;
    }

    // The first running request progresses, unless one of a higher priority waits or comes in; a step that preempted
    // admits nobody, but before victims of lower priorities; nobody comes in before somebody who is earlier in the
    // order of service, unless that one waits for a prefix.
    const auto is_outranked = [&](std::uint64_t id) {
      return config_.order == ServiceOrder::priority && std::ranges::any_of(served_, [&](const auto& other) {
               const bool comes_in = !other.second.running || admitted.contains(other.first);
               return comes_in && other.second.request.priority > served_.at(id).request.priority;
             });
    };
    if (earliest_running != ~std::uint64_t{0} && !is_outranked(earliest_running)) {
      REQUIRE_FALSE(victims.contains(earliest_running));
      REQUIRE_FALSE(plan.sequences.empty());
      REQUIRE(raw(plan.sequences[0].request) == earliest_running);
    }
    for (const std::uint64_t victim : victims) {
      for (const std::uint64_t newcomer : admitted) {
        REQUIRE(config_.order == ServiceOrder::priority);
        REQUIRE(served_.at(newcomer).request.priority > served_.at(victim).request.priority);
      }
    }
    for (const auto& [id, served] : served_) {
      for (const std::uint64_t id_in : admitted) {
        const Served& newcomer = served_.at(id_in);
        const bool of_others = config_.order == ServiceOrder::fair && newcomer.request.tenant != served.request.tenant;
        REQUIRE((served.running || of_others || newcomer.is_before(served, config_.order) || may_wait(served)));
      }
    }
  }

  /// Whether a running request of the same salt begins with the same block. Prompt rows that are to be scored are found
  /// nowhere, so one with log-probabilities does not wait, but only until its first token: when it is preempted after
  /// that, it comes back like any other. What a group begins with is what its leader does, the first unfinished sample:
  /// sample 0 may have ended within a block in which the others go on otherwise.
  bool may_wait(const Served& waiting) const {
    const std::uint32_t size = cache_.block_size;
    const bool scores = waiting.request.prompt_logprobs && waiting.outputs[0].empty();
    if (!cache_.enable_prefix_caching || scores) return false;
    const auto tokens = [&](const Served& served) {
      const auto leader = std::ranges::find(served.finished, false) - served.finished.begin();
      return scheduler_.tokens(served.request.id, static_cast<std::uint32_t>(leader));
    };
    const auto begins_alike = [&](const Served& other) {
      const auto a = tokens(waiting), b = tokens(other);
      return a.size() > size && b.size() >= size && std::equal(a.begin(), a.begin() + size, b.begin());
    };
    return std::ranges::any_of(served_, [&](const auto& entry) {
      return entry.second.running && entry.second.request.salt == waiting.request.salt && begins_alike(entry.second);
    });
  }

  void take_in(const StepPlan& plan, const StepResult& result, const std::set<std::uint64_t>& failed) {
    std::set<std::uint64_t> ended_by_error;
    for (const SampleUpdate& update : scheduler_.commit(result)) {
      const std::uint64_t id = raw(update.request);
      Served& served = served_.at(id);
      REQUIRE_FALSE(served.finished.at(update.sample));
      if (update.token >= 0) served.outputs[update.sample].push_back(update.token);
      if (update.finish == FinishReason::none) {
        if (update.token >= 0 && pick(4) == 0) extend(served, update.sample);
        continue;
      }
      served.finished[update.sample] = true;
      if (update.finish == FinishReason::error) {
        served.wanted.clear();
        REQUIRE(failed.contains(id));
        ended_by_error.insert(id);
      } else {
        check_output(served, update);
      }
      if (std::ranges::find(served.finished, false) != served.finished.end()) continue;
      ++(ended_by_error.contains(id) ? totals_.failed : totals_.completed);
      if (served.request.prompt_logprobs && !ended_by_error.contains(id)) {
        REQUIRE(served.scored.size() == served.request.prompt.size() - 1);
      }
      served_.erase(id);
    }
    REQUIRE(plan.step == result.step);
  }

  /// By what it is about to draw: nothing else may show.
  void extend(Served& served, std::uint32_t sample) {
    const auto expected = fake::expected_output(served.request, sample, stop_every_);
    std::vector<TokenId>& output = served.outputs[sample];
    const auto prompt = static_cast<std::uint32_t>(served.request.prompt.size());
    const auto drawn = static_cast<std::uint32_t>(output.size());
    const bool stops = expected.size() < served.request.max_tokens;  // with a token that must be drawn
    const std::size_t rest = expected.size() - drawn - (stops ? 1 : 0);
    const std::vector<TokenId> run(expected.begin() + drawn, expected.begin() + drawn + std::min(rest, pick(9)));
    CHECK_THROWS_AS(scheduler_.extend(served.request.id, sample, std::vector<TokenId>{-1}), InvalidArgument);
    const bool scored = pick(2) == 0;
    const std::uint32_t taken = scheduler_.extend(served.request.id, sample, run, scored);
    const std::size_t most = served.request.max_tokens - drawn - 1;  // one is drawn
    REQUIRE(taken == (config_.jump_ahead ? std::min(run.size(), most) : 0));
    output.insert(output.end(), run.begin(), run.begin() + taken);
    for (std::uint32_t i = 0; scored && i < taken; ++i) served.wanted.insert({sample, prompt + drawn + i - 1});
  }

  void check_output(const Served& served, const SampleUpdate& update) {
    const auto of_sample = [&](const auto& row) { return row.first == update.sample; };
    REQUIRE(std::ranges::none_of(served.wanted, of_sample));
    const auto expected = fake::expected_output(served.request, update.sample, stop_every_);
    REQUIRE(served.outputs[update.sample] == expected);
    const bool stops = update.finish == FinishReason::stop;
    REQUIRE((stops || expected.size() == served.request.max_tokens));
  }

  std::mt19937_64 random_;
  Totals& totals_;
  KvCacheConfig cache_;
  SchedulerConfig config_;
  std::uint64_t stop_every_;
  Scheduler scheduler_;
  fake::Executor executor_;
  std::map<std::uint64_t, Served> served_;
  std::set<std::uint64_t> forced_;
  std::uint64_t last_order_ = 0, last_turn_ = 0;
  bool in_flight_ = false;
  bool forces_ = true;
};

}  // namespace

// rule: scheduler.first-progresses
// rule: scheduler.jump-is-a-chunk
TEST_CASE("random service ends with every request's own output and every block accounted for") {
  constexpr long kOpsPerMachine = 400;
  Totals totals;
  const long machines = run_machines(60000, kOpsPerMachine, [&](long seed) {
    CAPTURE(seed);
    Machine(static_cast<std::uint64_t>(seed), totals).serve(kOpsPerMachine);
  });
  // The run was about something.
  MESSAGE("completed " << totals.completed << ", aborted " << totals.aborted << ", failed " << totals.failed
                       << ", refused " << totals.refused << ", preempted " << totals.preemptions << ", hit tokens "
                       << totals.hits << ", copies " << totals.copies << ", forks " << totals.forks << ", jumped "
                       << totals.jumped);
  if (machines == 0) return;
  for (const long count : {totals.completed, totals.aborted, totals.failed, totals.preemptions, totals.hits,
                           totals.copies, totals.forks, totals.jumped}) {
    CHECK(count > machines / 20);
  }
}
