// Feeds a trace (trace_writer.cpp) to a new scheduler.
#include <cerrno>
#include <cstring>
#include <fstream>
#include <optional>
#include <sstream>
#include <type_traits>
#include <utility>

#include "base/text.hpp"
#include "pagedcore/error.hpp"
#include "pagedcore/trace.hpp"

namespace pagedcore {
namespace {

/// The numbers of one line, in order.
class Fields {
 public:
  explicit Fields(const std::string& line) : in_(line) {}

  template <class T>
  T next() {
    if constexpr (std::is_enum_v<T>) {
      return T{static_cast<std::underlying_type_t<T>>(next<std::uint64_t>())};
    } else {
      T value{};
      if (!(in_ >> value)) throw Corrupt("a field is missing or no number of its kind");
      return value;
    }
  }
  template <class T>
  void get(T& value) {
    value = next<T>();
  }
  /// A count, then as many elements.
  template <class T, class Each>
  void list(std::vector<T>& values, const Each& each) {
    const auto count = next<std::size_t>();
    for (std::size_t i = 0; i < count; ++i) each(values.emplace_back());
  }
  template <class T>
  void list(std::vector<T>& values) {
    list(values, [this](T& value) { get(value); });
  }
  std::string rest() {
    std::string text;
    std::getline(in_ >> std::ws, text);
    return text;
  }
  void expect_end() {
    if (const std::string more = rest(); !more.empty()) throw Corrupt(str("'", more, "' is too much"));
  }

 private:
  std::istringstream in_;
};

SchedulerRequest request_of(Fields& fields) {
  SchedulerRequest r;
  fields.get(r.id);
  fields.get(r.arrival);
  fields.get(r.num_samples);
  fields.get(r.beam_width);
  fields.get(r.max_tokens);
  fields.get(r.salt);
  fields.get(r.prompt_logprobs);
  fields.get(r.prefix);
  fields.list(r.prompt);
  fields.get(r.priority);
  fields.get(r.tenant);
  return r;
}

StepResult result_of(Fields& fields) {
  StepResult result;
  fields.get(result.step);
  fields.list(result.tokens, [&](SampledToken& t) {
    fields.get(t.sequence);
    fields.get(t.sample);
    fields.get(t.token);
    fields.get(t.stop);
  });
  fields.list(result.failed);
  fields.list(result.beams, [&](BeamResult& beam) {
    fields.get(beam.request);
    fields.list(beam.children, [&](BeamChild& child) {
      fields.get(child.parent);
      fields.get(child.token);
    });
  });
  fields.list(result.swap_failed);
  return result;
}

class Replayer {
 public:
  explicit Replayer(const TraceVisitor& visit) : visit_(visit) {}

  TraceReplay report;

  /// False once a plan came out otherwise.
  bool take(const std::string& line) {
    Fields fields(line);
    const auto word = fields.next<std::string>();
    if (word == "pagedcore-trace") {
      if (const auto version = fields.next<int>(); version != 2) throw Corrupt(str("version ", version, ", not 2"));
      seen_header_ = true;
    } else if (!seen_header_) {
      throw Corrupt("this is no trace: it begins with 'pagedcore-trace 2'");
    } else if (word == "scheduler") {
      SchedulerConfig& config = config_.emplace();
      fields.get(config.max_batched_tokens);
      fields.get(config.max_sequences);
      fields.get(config.max_context);
      fields.get(config.watermark);
      fields.get(config.preemption);
      fields.get(config.order);
      fields.get(config.admission);
      fields.get(config.victim);
      fields.get(config.prompt_weight);
      fields.get(config.output_weight);
    } else if (word == "cache") {
      if (!config_) throw Corrupt("'cache' comes after 'scheduler'");
      KvCacheConfig cache;
      fields.get(cache.num_blocks);
      fields.get(cache.block_size);
      fields.get(cache.enable_prefix_caching);
      fields.get(cache.num_swap_blocks);
      fields.list(cache.windows);
      fields.get(cache.allocation);
      fields.get(cache.max_reservation);
      scheduler_.emplace(*config_, cache);
    } else if (!scheduler_) {
      throw Corrupt(str("'", word, "' comes after 'scheduler' and 'cache'"));
    } else {
      return replay(word, fields);
    }
    fields.expect_end();
    return true;
  }

 private:
  bool replay(const std::string& word, Fields& fields) {
    Scheduler& scheduler = *scheduler_;
    if (word == "plan") return plan(fields);
    if (word == "submit") {
      scheduler.submit(request_of(fields));
      ++report.requests;
    } else if (word == "abort") {
      scheduler.abort(fields.next<RequestId>());
    } else if (word == "preempt") {
      const auto id = fields.next<RequestId>();
      scheduler.force_preempt(id, fields.next<PreemptionMode>());
    } else if (word == "register") {
      const auto id = fields.next<PrefixId>();
      scheduler.register_prefix(id, request_of(fields));
    } else if (word == "release") {
      scheduler.release_prefix(fields.next<PrefixId>());
    } else if (word == "costs") {
      PreemptionCosts costs;
      fields.get(costs.token);
      fields.get(costs.block_out);
      fields.get(costs.block_in);
      scheduler.set_preemption_costs(costs);
    } else if (word == "clear") {
      scheduler.clear_prefix_cache();
    } else if (word == "commit") {
      scheduler.commit(result_of(fields));
    } else {
      throw Corrupt(str("'", word, "' is no kind of line"));
    }
    was_busy_ = was_busy_ && scheduler.has_work();
    fields.expect_end();
    return true;
  }

  bool plan(Fields& fields) {
    const auto now = fields.next<double>();
    const StepPlan plan = scheduler_->plan(now);
    const std::string recorded = fields.rest(), planned = to_text(plan);
    if (planned != recorded) {
      report.difference = str("recorded: ", recorded, "\nplanned:  ", planned);
      return false;
    }
    ++report.steps;
    visit_(now, plan, std::exchange(was_busy_, true));
    return true;
  }

  const TraceVisitor& visit_;
  bool seen_header_ = false;
  bool was_busy_ = false;  // since the latest plan
  std::optional<SchedulerConfig> config_;
  std::optional<Scheduler> scheduler_;
};

}  // namespace

TraceReplay replay_trace(const std::string& path) {
  return replay_trace(path, [](double, const StepPlan&, bool) {});
}

TraceReplay replay_trace(const std::string& path, const TraceVisitor& visit) {
  std::ifstream file(path);
  if (!file) throw Io(str(path, ": the trace cannot be opened: ", std::strerror(errno)));
  Replayer replayer(visit);
  std::string line;
  std::uint64_t number = 0;
  while (std::getline(file, line)) {
    ++number;
    if (file.eof()) {  // no end of line: the writer was interrupted
      replayer.report.is_complete = false;
      break;
    }
    try {
      if (!replayer.take(line)) {
        replayer.report.difference = str("line ", number, "\n", replayer.report.difference);
        break;
      }
    } catch (const Error& error) {
      throw Corrupt(str(path, ", line ", number, ": ", error.what()));
    }
  }
  if (file.bad()) throw Io(str(path, ": the trace cannot be read beyond line ", number));
  if (number == 0) throw Corrupt(str(path, " is empty, not a trace"));
  return std::move(replayer.report);
}

}  // namespace pagedcore
