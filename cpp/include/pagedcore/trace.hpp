// Step traces: everything that goes into a Scheduler and every plan that comes out, as lines of text. A scheduler is a
// pure object, so a trace replays: fed to a new one it must give the same plans. For finding out why a step was planned
// as it was, for regression tests, and for comparing policies on real arrivals.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "pagedcore/export.hpp"
#include "pagedcore/scheduler.hpp"

namespace pagedcore {

/// A plan as one line. Block tables and tokens enter as a 64-bit digest.
PAGEDCORE_API std::string to_text(const StepPlan& plan);

/// Writes a trace. Call each method right after the scheduler's call of the same name succeeded. A file that cannot be
/// written any more ends the trace and nothing else: error() says why. Not thread-safe.
class PAGEDCORE_API TraceWriter {
 public:
  /// Replaces the file. Throws Io when it cannot be created. Replaying uses the built-in prefix hash.
  TraceWriter(const std::string& path, const SchedulerConfig& config, const KvCacheConfig& cache);
  ~TraceWriter();
  TraceWriter(TraceWriter&&) noexcept;
  TraceWriter& operator=(TraceWriter&&) noexcept;

  void submit(const SchedulerRequest& request) noexcept;
  void abort(RequestId id) noexcept;
  /// Of tokens that were taken.
  void extend(RequestId id, std::uint32_t sample, std::span<const TokenId> tokens, bool scored) noexcept;
  void force_preempt(RequestId id, PreemptionMode mode = PreemptionMode::recompute) noexcept;
  void register_prefix(PrefixId id, const SchedulerRequest& prefix, bool shared = false) noexcept;
  void release_prefix(PrefixId id) noexcept;
  void set_preemption_costs(const PreemptionCosts& costs) noexcept;
  void clear_prefix_cache() noexcept;
  void import_prefix(std::span<const TokenId> tokens, std::uint64_t salt,
                     std::span<const std::uint8_t> offered) noexcept;
  void end_store_read(RequestId id) noexcept;
  void plan(double now, const StepPlan& plan) noexcept;
  void commit(const StepResult& result) noexcept;

  /// Why the trace ended early; empty while it goes on.
  const std::string& error() const noexcept;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

struct TraceReplay {
  std::uint64_t steps = 0;
  std::uint64_t requests = 0;
  std::string difference;
  bool is_complete = true;

  template <class V>
  static void fields(V&& v) {
    using R = TraceReplay;
    v(field("steps", &R::steps, "That were planned alike."));
    v(field("requests", &R::requests, "That were submitted."));
    v(field("difference", &R::difference,
            "The first plan that came out otherwise: its line, what was recorded, what came out. Empty: none."));
    v(field("is_complete", &R::is_complete, "False when the last line is cut off: the writer did not end in peace."));
  }
};

/// Feeds a trace to a new scheduler. Throws Io when the file cannot be read, and Corrupt, with the line number, when a
/// line is malformed or the scheduler refuses what it accepted when the trace was written.
PAGEDCORE_API TraceReplay replay_trace(const std::string& path);

/// A plan of a trace, when it was made, and whether there was work ever since the plan before.
using TraceVisitor = std::function<void(double now, const StepPlan& plan, bool was_busy)>;
/// The same, and calls `visit` with every plan that came out alike, in order.
PAGEDCORE_API TraceReplay replay_trace(const std::string& path, const TraceVisitor& visit);

}  // namespace pagedcore
