// The statistics of an engine.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "pagedcore/engine.hpp"
#include "pagedcore/kv_cache.hpp"
#include "pagedcore/scheduler.hpp"

namespace pagedcore {

struct EngineStats {
  KvCacheCounts blocks;
  SchedulerStats scheduler;
  SwapCounters swap;
  KvStoreCounters store;
  std::uint64_t requests_finished = 0;
  std::uint64_t requests_aborted = 0;
  std::uint64_t requests_failed = 0;
  std::uint64_t requests_expired = 0;
  std::uint64_t requests_refused = 0;
  std::uint64_t prefix_query_tokens = 0;
  double step_seconds = 0.0;
  double plan_seconds = 0.0;
  std::uint32_t draining = 0;
  std::uint32_t paused = 0;
  std::uint64_t weights = 0;
  std::uint64_t native_weights = 0;
  std::uint64_t integer_weights = 0;
  std::uint32_t ranks = 1;
  std::uint64_t rank_weights_most = 0;

  template <class V>
  static void fields(V&& v) {
    using S = EngineStats;
    v(part("blocks", &S::blocks, "Where every block is."));
    v(part("scheduler", &S::scheduler, "Its queues and its work."));
    v(part("swap", &S::swap, "What moving blocks has cost."));
    v(part("store", &S::store, "What went to and from kv_store."));
    v(field("requests_finished", &S::requests_finished, "Requests ended by a stop token or by length."));
    v(field("requests_aborted", &S::requests_aborted, "Requests ended by abort."));
    v(field("requests_failed", &S::requests_failed, "Requests ended by an error of their own."));
    v(field("requests_expired", &S::requests_expired, "Requests ended by their deadline."));
    v(field("requests_refused", &S::requests_refused, "Requests refused since max_waiting others had not begun."));
    v(field("prefix_query_tokens", &S::prefix_query_tokens, "Prompt tokens of all accepted requests."));
    v(field("step_seconds_total", &S::step_seconds, "Planning, running and committing of all steps."));
    v(field("plan_seconds_total", &S::plan_seconds, "Of that: planning."));
    v(field("draining", &S::draining, "1: no request is accepted, until resume().").gauge("draining"));
    v(field("paused", &S::paused, "1: no step begins, until resume().").gauge("paused"));
    v(field("weights", &S::weights, "Bytes of the weights.").gauge("weight_bytes"));
    v(field("native_weights", &S::native_weights,
            "Of them: kept in a block format; the others are in the compute type.")
          .gauge("native_weight_bytes"));
    v(field("integer_weights", &S::integer_weights,
            "Of those: their codes are multiplied (dtype int8); the others are widened inside the products.")
          .gauge("integer_weight_bytes"));
    v(field("ranks", &S::ranks, "Ranks that share the model (tensor_parallel).").gauge("ranks"));
    v(field("rank_weights_most", &S::rank_weights_most, "Bytes of the weights of the rank that has most.")
          .gauge("rank_weight_bytes_most"));
  }
};

std::map<std::string, double> to_map(const EngineStats& stats);

}  // namespace pagedcore
