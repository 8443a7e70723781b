// The counters of an engine, and their names: docs/stats.md says what each means.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "pagedcore/engine.hpp"
#include "pagedcore/kv_cache.hpp"
#include "pagedcore/scheduler.hpp"

namespace pagedcore {

struct EngineStats {
  SchedulerStats scheduler;
  KvCacheCounts blocks;
  SwapCounters swap;
  std::uint64_t requests_finished = 0;
  std::uint64_t requests_aborted = 0;
  std::uint64_t requests_failed = 0;
  std::uint64_t prefix_query_tokens = 0;
  double plan_seconds = 0.0;
  double step_seconds = 0.0;
};

std::map<std::string, double> to_map(const EngineStats& stats);

}  // namespace pagedcore
