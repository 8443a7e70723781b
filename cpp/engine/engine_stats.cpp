#include "engine/engine_stats.hpp"

namespace pagedcore {

std::map<std::string, double> to_map(const EngineStats& s) {
  const auto number = [](std::uint64_t n) { return static_cast<double>(n); };
  return {
      {"block_copies", number(s.scheduler.block_copies)},
      {"blocks_cached", number(s.blocks.cached)},
      {"blocks_free", number(s.blocks.free)},
      {"blocks_in_flight", number(s.blocks.in_flight)},
      {"blocks_pinned", number(s.scheduler.blocks_pinned)},
      {"blocks_reserved", number(s.blocks.reserved)},
      {"blocks_shared", number(s.blocks.shared)},
      {"blocks_swapped", number(s.blocks.swapped)},
      {"blocks_swapped_in", number(s.scheduler.blocks_swapped_in)},
      {"blocks_swapped_out", number(s.scheduler.blocks_swapped_out)},
      {"blocks_total", number(s.blocks.total)},
      {"blocks_used", number(s.blocks.used)},
      {"forks", number(s.scheduler.forks)},
      {"kv_slots_overreserved", number(s.scheduler.slots_overreserved)},
      {"kv_slots_reserved", number(s.scheduler.slots_reserved)},
      {"kv_slots_unused", number(s.scheduler.slots_unused)},
      {"kv_tokens", number(s.scheduler.tokens_cached)},
      {"pinned_hit_tokens", number(s.scheduler.pinned_hit_tokens)},
      {"plan_seconds_total", s.plan_seconds},
      {"preemption_hit_tokens", number(s.scheduler.preemption_hit_tokens)},
      {"preemptions_recompute", number(s.scheduler.preemptions_recompute)},
      {"preemptions_swap", number(s.scheduler.preemptions_swap)},
      {"prefix_hit_tokens", number(s.scheduler.prefix_hit_tokens)},
      {"prefix_query_tokens", number(s.prefix_query_tokens)},
      {"prefix_waits", number(s.scheduler.prefix_waits)},
      {"prefixes_registered", number(s.scheduler.prefixes)},
      {"requests_aborted", number(s.requests_aborted)},
      {"requests_failed", number(s.requests_failed)},
      {"requests_finished", number(s.requests_finished)},
      {"requests_running", number(s.scheduler.running)},
      {"requests_swapped", number(s.scheduler.swapped)},
      {"requests_waiting", number(s.scheduler.waiting)},
      {"step_seconds_total", s.step_seconds},
      {"steps", number(s.scheduler.steps)},
      {"swap_blocks_total", number(s.blocks.swap_total)},
      {"swap_bytes_in", number(s.swap.bytes_in)},
      {"swap_bytes_out", number(s.swap.bytes_out)},
      {"swap_errors", number(s.swap.errors)},
      {"swap_fallbacks", number(s.scheduler.swap_fallbacks)},
      {"swap_file_bytes_in", number(s.swap.file_bytes_in)},
      {"swap_file_bytes_out", number(s.swap.file_bytes_out)},
      {"swap_seconds_in", s.swap.seconds_in},
      {"swap_seconds_out", s.swap.seconds_out},
      {"tokens_computed", number(s.scheduler.tokens_computed)},
      {"tokens_recomputed", number(s.scheduler.tokens_recomputed)},
      {"tokens_sampled", number(s.scheduler.tokens_sampled)},
  };
}

}  // namespace pagedcore
