#include "engine/engine_stats.hpp"

namespace pagedcore {

std::map<std::string, double> to_map(const EngineStats& s) {
  const auto number = [](std::uint64_t n) { return static_cast<double>(n); };
  return {
      {"block_copies", number(s.scheduler.block_copies)},
      {"blocks_cached", number(s.blocks.cached)},
      {"blocks_free", number(s.blocks.free)},
      {"blocks_in_flight", number(s.blocks.in_flight)},
      {"blocks_shared", number(s.blocks.shared)},
      {"blocks_total", number(s.blocks.total)},
      {"blocks_used", number(s.blocks.used)},
      {"forks", number(s.scheduler.forks)},
      {"plan_seconds_total", s.plan_seconds},
      {"preemptions_recompute", number(s.scheduler.preemptions_recompute)},
      {"prefix_hit_tokens", number(s.scheduler.prefix_hit_tokens)},
      {"prefix_waits", number(s.scheduler.prefix_waits)},
      {"prefix_query_tokens", number(s.prefix_query_tokens)},
      {"requests_aborted", number(s.requests_aborted)},
      {"requests_failed", number(s.requests_failed)},
      {"requests_finished", number(s.requests_finished)},
      {"requests_running", number(s.scheduler.running)},
      {"requests_waiting", number(s.scheduler.waiting)},
      {"step_seconds_total", s.step_seconds},
      {"steps", number(s.scheduler.steps)},
      {"tokens_computed", number(s.scheduler.tokens_computed)},
      {"tokens_recomputed", number(s.scheduler.tokens_recomputed)},
      {"tokens_sampled", number(s.scheduler.tokens_sampled)},
  };
}

}  // namespace pagedcore
