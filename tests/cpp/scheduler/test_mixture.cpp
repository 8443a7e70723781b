// Everything at once against models that are obviously right: searches, groups of samples, single requests and
// registered prefixes, tenants, aborts in any state, preemption of every kind, layers with windows, a swap space that
// loses blocks, host memory that runs out at any allocation, under policies drawn at random. After every operation:
// every invariant (conservation among them), the sharing bound, bounded waste. In the end: liveness, and every output
// as if its request had been alone.
#include <doctest/doctest.h>

#include <algorithm>
#include <map>
#include <new>
#include <random>
#include <set>
#include <vector>

#include "../property_ops.hpp"
#include "failing_allocations.hpp"
#include "fake_executor.hpp"
#include "pagedcore/error.hpp"

using namespace pagedcore;

namespace {

std::uint64_t constant_hash(std::uint64_t, const TokenId*, std::size_t) noexcept { return 7; }

struct Totals {
  long requests = 0, refused = 0, aborted = 0, searches = 0, prefixes = 0, pinned_hits = 0, hits = 0, left_over = 0,
       recomputed = 0, swapped = 0, fallbacks = 0, forks = 0, copies = 0, out_of_memory = 0, waits = 0, failed = 0;
};

class Machine {
 public:
  Machine(std::uint64_t seed, Totals& totals)
      : random_(seed),
        totals_(totals),
        cache_(random_cache(seed)),
        config_(random_config(seed)),
        stop_every_(pick(3) == 0 ? 0 : 5 + pick(12)),
        scheduler_(config_, cache_),
        executor_(cache_, stop_every_) {
    executor_.lose_every = pick(3) == 0 ? 2 + pick(20) : 0;
  }

  void serve(long ops) {
    for (long i = 0; i < ops; ++i) {
      switch (pick(10)) {
        case 0:
        case 1:
          submit();
          break;
        case 2:
          if (pick(4) == 0) abort();
          break;
        case 3:
          force();
          break;
        case 4:
          if (pick(8) == 0) register_prefix();
          break;
        case 5:
          if (pick(12) == 0) release_prefix();
          if (pick(60) == 0) scheduler_.clear_prefix_cache();
          if (pick(10) == 0) {
            scheduler_.set_preemption_costs({double(pick(3)) * 1e-3, double(pick(3)) * 1e-3, 1e-3});
          }
          break;
        default:
          step();
      }
      verify();
    }
    while (!prefixes_.empty()) release(prefixes_.begin()->first);
    for (long steps = 0; scheduler_.has_work(); ++steps) {
      REQUIRE(steps < 20000);
      step();
      verify();
    }
    REQUIRE(live_.empty());
    const KvCacheCounts counts = scheduler_.cache().counts();
    REQUIRE(counts.free + counts.cached == counts.total);
    REQUIRE(counts.swapped == 0);
    const SchedulerStats stats = scheduler_.stats();
    REQUIRE(stats.blocks_pinned == 0);
    totals_.hits += static_cast<long>(stats.prefix_hit_tokens);
    totals_.pinned_hits += static_cast<long>(stats.pinned_hit_tokens);
    totals_.left_over += static_cast<long>(stats.preemption_hit_tokens);
    totals_.recomputed += static_cast<long>(stats.preemptions_recompute);
    totals_.swapped += static_cast<long>(stats.preemptions_swap);
    totals_.fallbacks += static_cast<long>(stats.swap_fallbacks);
    totals_.forks += static_cast<long>(stats.forks);
    totals_.copies += static_cast<long>(stats.block_copies);
    totals_.waits += static_cast<long>(stats.prefix_waits);
  }

 private:
  struct Live {
    SchedulerRequest request;
    std::map<std::uint32_t, std::vector<TokenId>> outputs;  // by sample
    std::uint32_t unfinished = 0;
    bool is_prefix = false;
  };

  std::uint64_t pick(std::uint64_t count) { return random_() % count; }

  static KvCacheConfig random_cache(std::uint64_t seed) {
    const std::vector<std::uint32_t> windows[] = {{}, {}, {}, {9}, {0, 6}, {0, 0, 5, 5}};
    const auto groups = static_cast<std::uint32_t>(std::max<std::size_t>(1, windows[seed % 6].size()));
    const auto block_size = static_cast<std::uint32_t>(1 + seed % 5);
    return {.num_blocks = static_cast<std::uint32_t>((60 + seed * 7 % 90) / block_size + 4) * groups,
            .block_size = block_size,
            .enable_prefix_caching = seed % 4 != 3,
            .prefix_hash = seed % 3 == 0 ? constant_hash : nullptr,
            .windows = windows[seed % 6],
            .num_swap_blocks = static_cast<std::uint32_t>(seed % 5 * 15),
            .max_events = seed % 2 == 0 ? 50u : 0u};
  }

  SchedulerConfig random_config(std::uint64_t seed) {
    constexpr double kWatermarks[] = {0.0, 0.01, 0.2};
    return {.max_batched_tokens = static_cast<std::uint32_t>(4 + pick(pick(2) == 0 ? 6 : 64)),
            .max_sequences = static_cast<std::uint32_t>(4 + pick(8)),
            .watermark = kWatermarks[pick(3)],
            .preemption = static_cast<PreemptionMode>(seed / 6 % 3),
            .order = static_cast<ServiceOrder>(pick(3)),
            .admission = static_cast<AdmissionPolicy>(pick(4)),
            .victim = static_cast<VictimPolicy>(pick(2))};
  }

  /// Calls; now and then memory runs out on the way, which must change nothing.
  template <class Call>
  auto call(Call&& action) {
    if (pick(6) == 0) {
      const KvCacheCounts before = scheduler_.cache().counts();
      fail_after_allocations(static_cast<long>(pick(12)));
      try {
        auto result = action();
        fail_after_allocations(-1);
        return result;
      } catch (const std::bad_alloc&) {
        fail_after_allocations(-1);
        ++totals_.out_of_memory;
        const KvCacheCounts after = scheduler_.cache().counts();
        REQUIRE(before.used == after.used);
        REQUIRE(before.cached == after.cached);
        REQUIRE(before.swapped == after.swapped);
        scheduler_.check();
      } catch (...) {
        fail_after_allocations(-1);
        throw;
      }
    }
    return action();
  }

  std::vector<TokenId> random_prompt(std::size_t size) {
    std::vector<TokenId> prompt(size);
    const bool ones = pick(2) == 0;
    for (TokenId& token : prompt) token = ones ? 1 : static_cast<TokenId>(pick(12) == 0);
    return prompt;
  }

  void submit() {
    SchedulerRequest request;
    request.id = RequestId{++last_id_};
    request.arrival = pick(8) == 0 ? static_cast<double>(pick(last_id_)) : static_cast<double>(last_id_);
    request.prompt = random_prompt(1 + pick(24));
    request.max_tokens = static_cast<std::uint32_t>(pick(14));
    request.salt = pick(5) == 0;
    request.priority = static_cast<std::int32_t>(pick(3)) - 1;
    request.tenant = pick(3);
    if (pick(3) == 0) {
      request.beam_width = static_cast<std::uint32_t>(1 + pick(6));
    } else if (pick(2) == 0) {
      request.num_samples = static_cast<std::uint32_t>(1 + pick(5));
      request.prompt_logprobs = pick(4) == 0;
    }
    if (pick(3) == 0 && !prefixes_.empty()) {
      const auto prefix = std::next(prefixes_.begin(), static_cast<std::ptrdiff_t>(pick(prefixes_.size())));
      request.prefix = PrefixId{prefix->first};
      if (pick(10) != 0) request.prompt.insert(request.prompt.begin(), prefix->second.begin(), prefix->second.end());
    }
    try {
      call([&] {
        scheduler_.submit(request);
        return 0;
      });
    } catch (const InvalidArgument&) {
      ++totals_.refused;
      return;
    }
    ++totals_.requests;
    Live& live = live_[last_id_];
    live.request = request;
    live.unfinished = request.beam_width > 0 ? 1 : request.num_samples;
    if (request.beam_width == 0) return;
    ++totals_.searches;
    executor_.searches[last_id_].width = request.beam_width;
    executor_.searches[last_id_].max_tokens = request.max_tokens;
  }

  void register_prefix() {
    SchedulerRequest request;
    request.id = RequestId{++last_id_};
    request.arrival = static_cast<double>(last_id_);
    request.prompt = random_prompt(1 + pick(20));
    request.salt = pick(4) == 0;
    const std::uint64_t id = 1 + pick(3);
    try {
      call([&] {
        scheduler_.register_prefix(PrefixId{id}, request);
        return 0;
      });
    } catch (const InvalidArgument&) {
      ++totals_.refused;
      return;
    }
    REQUIRE_FALSE(prefixes_.contains(id));
    ++totals_.prefixes;
    prefixes_[id] = request.prompt;
    Live& live = live_[last_id_];
    live.request = request;
    live.request.max_tokens = 0;
    live.unfinished = 1;
    live.is_prefix = true;
    computing_[id] = last_id_;
  }

  void release_prefix() {
    const std::uint64_t id = 1 + pick(3);
    if (prefixes_.contains(id)) {
      release(id);
    } else {
      CHECK_THROWS_AS(scheduler_.release_prefix(PrefixId{id}), InvalidArgument);
    }
  }

  void release(std::uint64_t id) {
    scheduler_.release_prefix(PrefixId{id});
    prefixes_.erase(id);
    live_.erase(computing_[id]);  // aborted, when it was not there yet
  }

  void abort() {
    if (last_id_ == 0) return;
    const std::uint64_t id = 1 + pick(last_id_);
    const bool known = live_.contains(id);
    REQUIRE(scheduler_.abort(RequestId{id}) == known);
    totals_.aborted += known;
    if (known) forget(id);
  }

  void forget(std::uint64_t id) {
    if (live_.at(id).is_prefix) {
      for (const auto& [prefix, request] : computing_) {
        if (request == id) prefixes_.erase(prefix);
      }
    }
    totals_.failed += failed_.contains(id);
    live_.erase(id);
    executor_.searches.erase(id);
  }

  void force() {
    if (live_.empty()) return;
    const auto live = std::next(live_.begin(), static_cast<std::ptrdiff_t>(pick(live_.size())));
    if (scheduler_.force_preempt(RequestId{live->first}, static_cast<PreemptionMode>(pick(3)))) {
      forced_.insert(live->first);
    }
  }

  void step() {
    const StepPlan plan = call([&] { return scheduler_.plan(0.0); });
    for (const RequestId id : plan.preempted) {
      const bool is_forced = forced_.erase(raw(id)) > 0;
      if (config_.admission == AdmissionPolicy::never_evict) REQUIRE(is_forced);
    }
    if (plan.empty()) {
      // All that a plan may have done is to preempt, on demand or for a higher priority, or to bring back somebody
      // whose blocks strangers had kept in memory; the next one goes on from there.
      REQUIRE((!scheduler_.has_work() || plan.plan_again()));
      return;
    }
    REQUIRE(plan.tokens.size() <= config_.max_batched_tokens);
    REQUIRE(plan.sequences.size() <= config_.max_sequences);
    REQUIRE((plan.swap_outs.empty() || plan.swap_ins.empty()));
    while (pick(8) == 0) {  // anything may happen while a step runs
      switch (pick(4)) {
        case 0:
          abort();
          break;
        case 1:
          submit();
          break;
        case 2:
          release_prefix();
          break;
        default:
          force();
      }
      scheduler_.check();
    }
    // Searches that were aborted meanwhile have no model any more: their rows are ignored, as their results would be.
    StepResult result = executor_.run(plan);
    failed_.clear();
    if (pick(30) == 0 && !plan.sequences.empty()) {  // a copy, or whatever else an executor does for one request, fails
      failed_.insert(raw(plan.sequences[pick(plan.sequences.size())].request));
      for (const std::uint64_t id : failed_) result.failed.push_back(RequestId{id});
    }
    std::map<std::uint64_t, std::vector<std::vector<TokenId>>> ended;
    for (const BeamResult& beam : result.beams) {
      if (!beam.children.empty()) continue;
      for (const BeamChild& child : executor_.searches.at(raw(beam.request)).last) {
        const auto tokens = scheduler_.tokens(beam.request, child.parent);
        const auto prompt = static_cast<std::ptrdiff_t>(live_.at(raw(beam.request)).request.prompt.size());
        ended[raw(beam.request)].emplace_back(tokens.begin() + prompt, tokens.end()).push_back(child.token);
      }
    }
    for (const SampleUpdate& update : call([&] { return scheduler_.commit(result); })) take_in(update, ended);
  }

  void take_in(const SampleUpdate& update, std::map<std::uint64_t, std::vector<std::vector<TokenId>>>& ended) {
    const std::uint64_t id = raw(update.request);
    if (update.finish == FinishReason::error) {
      REQUIRE(failed_.contains(id));
      if (live_.contains(id)) forget(id);
      return;
    }
    Live& live = live_.at(id);
    if (live.request.beam_width > 0) {
      if (update.finish == FinishReason::none) return;
      REQUIRE(ended.at(id) == fake::expected_beams(live.request));
    } else {
      std::vector<TokenId>& output = live.outputs[update.sample];
      if (update.token >= 0) output.push_back(update.token);
      if (update.finish == FinishReason::none) return;
      if (live.request.max_tokens > 0) {
        REQUIRE(output == fake::expected_output(live.request, update.sample, stop_every_));
      }
      if (--live.unfinished > 0) return;
    }
    executor_.searches.erase(id);
    live_.erase(id);
  }

  void verify() {
    scheduler_.check();
    const KvCacheCounts counts = scheduler_.cache().counts();
    REQUIRE(counts.free + counts.cached + counts.in_flight + counts.used == counts.total);
    const SchedulerStats stats = scheduler_.stats();
    REQUIRE(stats.blocks_pinned <= counts.used);
    REQUIRE(stats.waiting + stats.running == live_.size());
    // Of every sequence less than one block is unused.
    REQUIRE(stats.slots_unused <= std::uint64_t{counts.used} * (cache_.block_size - 1) * 16);
    if (cache_.windows.empty()) REQUIRE(counts.used <= sharing_bound() + stats.blocks_pinned);
    if (pick(20) == 0) check_events();
  }

  /// What all requests may hold together: full prompt blocks once, everything behind them once a sequence.
  std::uint64_t sharing_bound() const {
    std::uint64_t bound = 0;
    for (const auto& [id, live] : live_) {
      const std::uint64_t size = cache_.block_size, prompt = live.request.prompt.size();
      const std::uint64_t sequences = std::max(live.request.num_samples, live.request.beam_width);
      const std::uint64_t all = (prompt + live.request.max_tokens + size - 1) / size;
      bound += prompt / size + sequences * (all - prompt / size);
    }
    return bound;
  }

  /// Whoever follows the events knows what can be found.
  void check_events() {
    for (const CacheEvent& event : scheduler_.take_events()) {
      if (event.kind == CacheEventKind::cleared) stored_.clear();
      if (event.kind == CacheEventKind::removed) stored_.erase(event.id);
      if (event.kind != CacheEventKind::stored) continue;
      REQUIRE(event.tokens.size() <= cache_.block_size);
      REQUIRE(stored_.emplace(event.id, event.tokens).second);
    }
    REQUIRE(stored_.size() <= cache_.num_blocks);
  }

  std::mt19937_64 random_;
  Totals& totals_;
  KvCacheConfig cache_;
  SchedulerConfig config_;
  std::uint64_t stop_every_;
  Scheduler scheduler_;
  fake::Executor executor_;
  std::map<std::uint64_t, Live> live_;
  std::map<std::uint64_t, std::vector<TokenId>> prefixes_;
  std::map<std::uint64_t, std::uint64_t> computing_;  // requests of the prefixes, by prefix
  std::map<std::uint64_t, std::vector<TokenId>> stored_;
  std::set<std::uint64_t> forced_;  // preemptions that a plan will tell of
  std::set<std::uint64_t> failed_;  // requests of the step that is taken in
  std::uint64_t last_id_ = 0;
};

}  // namespace

// rule: scheduler.first-progresses, scheduler.throw-changes-nothing
TEST_CASE("random mixtures of everything, with faults of every kind") {
  constexpr long kOpsPerMachine = 500;
  Totals t;
  const long machines = run_machines(60000, kOpsPerMachine, [&](long seed) {
    CAPTURE(seed);
    Machine(static_cast<std::uint64_t>(seed), t).serve(kOpsPerMachine);
  });
  MESSAGE("requests " << t.requests << ", refused " << t.refused << ", aborted " << t.aborted << ", searches "
                      << t.searches << ", prefixes " << t.prefixes << ", pinned hits " << t.pinned_hits << ", hits "
                      << t.hits << ", left over " << t.left_over << ", waits " << t.waits << ", recomputed "
                      << t.recomputed << ", swapped " << t.swapped << ", fallbacks " << t.fallbacks << ", forks "
                      << t.forks << ", copies " << t.copies << ", out of memory " << t.out_of_memory << ", failed "
                      << t.failed);
  if (machines == 0) return;
  // The run was about something.
  for (const long count :
       {t.requests, t.refused, t.aborted, t.searches, t.prefixes, t.pinned_hits, t.hits, t.left_over, t.waits,
        t.recomputed, t.swapped, t.fallbacks, t.forks, t.copies, t.out_of_memory, t.failed}) {
    CHECK(count > machines / 20);
  }
}
