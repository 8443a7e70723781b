// Feeds a trace (trace_writer.cpp) to a new scheduler. Traces of version 2, whose lines hold the fields by place
// instead of by name, are read too.
#include <cerrno>
#include <charconv>
#include <cstring>
#include <fstream>
#include <initializer_list>
#include <optional>
#include <string_view>
#include <utility>

#include "base/field_lists.hpp"
#include "base/text.hpp"
#include "pagedcore/error.hpp"
#include "pagedcore/trace.hpp"

namespace pagedcore {
namespace {

/// The words of one line, in order. Numbers do not depend on the locale of the process.
class Tokens {
 public:
  explicit Tokens(std::string_view line) : rest_(line) {}

  bool done() {
    rest_.remove_prefix(std::min(rest_.find_first_not_of(' '), rest_.size()));
    return rest_.empty();
  }
  std::string_view word() {
    if (done()) throw Corrupt("a field is missing");
    const std::string_view word = rest_.substr(0, rest_.find(' '));
    rest_.remove_prefix(word.size());
    return word;
  }
  template <class T>
  T next() {
    T value{};
    get(value);
    return value;
  }
  template <class T>
  void get(T& value) {
    if constexpr (std::is_enum_v<T>) {
      value = T{next<std::underlying_type_t<T>>()};
    } else if constexpr (std::is_same_v<T, bool>) {
      value = next<std::uint32_t>() != 0;
    } else {
      const std::string_view text = word();
      const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
      if (error != std::errc{} || end != text.data() + text.size())
        throw Corrupt(str("'", text, "' is no number of its kind"));
    }
  }
  /// A count, then as many elements.
  template <class T, class Each>
  void list(std::vector<T>& values, const Each& each) {
    const auto count = next<std::size_t>();
    for (std::size_t i = 0; i < count; ++i) each(values.emplace_back());
  }
  template <class T>
  void get(std::vector<T>& values) {
    list(values, [this](T& value) { get(value); });
  }
  std::string_view rest() {
    done();
    return std::exchange(rest_, {});
  }
  void expect_end() {
    if (!done()) throw Corrupt(str("'", rest_, "' is too much"));
  }

 private:
  std::string_view rest_;
};

/// The fields of a struct by place, as version 2 had them.
template <class T>
void get_by_place(Tokens& tokens, T& t, std::initializer_list<std::string_view> names) {
  for (const std::string_view name : names)
    each_field(t, [&](auto& owner, const auto& f) {
      if (name == f.name) tokens.get(owner.*f.member);
    });
}
void get_by_place(Tokens& tokens, SchedulerConfig& config) {
  get_by_place(tokens, config,
               {"max_batched_tokens", "max_sequences", "max_context", "watermark", "preemption", "order", "admission",
                "victim", "prompt_weight", "output_weight"});
}
void get_by_place(Tokens& tokens, KvCacheConfig& cache) {
  get_by_place(tokens, cache,
               {"num_blocks", "block_size", "enable_prefix_caching", "num_swap_blocks", "windows", "allocation",
                "max_reservation"});
}
void get_by_place(Tokens& tokens, SchedulerRequest& request) {
  get_by_place(tokens, request,
               {"id", "arrival", "num_samples", "beam_width", "max_tokens", "salt", "prompt_logprobs", "prefix",
                "prompt", "priority", "tenant"});
}
void get_by_place(Tokens& tokens, PreemptionCosts& costs) {
  get_by_place(tokens, costs, {"token", "block_out", "block_in"});
}

/// The fields of a struct by name, up to the end of the line; `what` says of what.
template <class T>
void get_by_name(Tokens& tokens, T& t, std::string_view what) {
  while (!tokens.done()) {
    const std::string_view text = tokens.word();
    const std::size_t equals = text.find('=');
    if (equals == std::string_view::npos) throw Corrupt(str("'", text, "' is not name=value"));
    set_field(t, what, text.substr(0, equals), text.substr(equals + 1));
  }
}

StepResult result_of(Tokens& tokens) {
  StepResult result;
  tokens.get(result.step);
  tokens.list(result.tokens, [&](SampledToken& t) {
    tokens.get(t.sequence);
    tokens.get(t.sample);
    tokens.get(t.token);
    tokens.get(t.stop);
  });
  tokens.get(result.failed);
  tokens.list(result.beams, [&](BeamResult& beam) {
    tokens.get(beam.request);
    tokens.list(beam.children, [&](BeamChild& child) {
      tokens.get(child.parent);
      tokens.get(child.token);
    });
  });
  tokens.get(result.swap_failed);
  return result;
}

class Replayer {
 public:
  explicit Replayer(const TraceVisitor& visit) : visit_(visit) {}

  TraceReplay report;

  /// False once a plan came out otherwise.
  bool take(std::string_view line) {
    Tokens tokens(line);
    const std::string_view word = tokens.word();
    if (word == "pagedcore-trace") {
      version_ = tokens.next<int>();
      if (version_ < 2 || version_ > 4) throw Corrupt(str("version ", version_, ", not 2, 3 or 4"));
    } else if (version_ == 0) {
      throw Corrupt("this is no trace: it begins with 'pagedcore-trace 4'");
    } else if (word == "scheduler") {
      config_ = fields_of<SchedulerConfig>(tokens, word);
    } else if (word == "cache") {
      if (!config_) throw Corrupt("'cache' comes after 'scheduler'");
      scheduler_.emplace(*config_, fields_of<KvCacheConfig>(tokens, word));
    } else if (!scheduler_) {
      throw Corrupt(str("'", word, "' comes after 'scheduler' and 'cache'"));
    } else {
      return replay(word, tokens);
    }
    tokens.expect_end();
    return true;
  }

 private:
  template <class T>
  T fields_of(Tokens& tokens, std::string_view what) const {
    T t{};
    if (version_ == 2) {
      get_by_place(tokens, t);
    } else {
      get_by_name(tokens, t, what);
    }
    return t;
  }

  bool replay(std::string_view word, Tokens& tokens) {
    Scheduler& scheduler = *scheduler_;
    if (word == "plan") return plan(tokens);
    if (word == "submit") {
      scheduler.submit(fields_of<SchedulerRequest>(tokens, word));
      ++report.requests;
    } else if (word == "abort") {
      scheduler.abort(tokens.next<RequestId>());
    } else if (word == "extend") {
      extend(tokens);
    } else if (word == "preempt") {
      const auto id = tokens.next<RequestId>();
      PreemptionMode mode{};
      if (version_ == 2) {
        tokens.get(mode);
      } else {
        from_text("preempt", tokens.word(), mode);
      }
      scheduler.force_preempt(id, mode);
    } else if (word == "register" || word == "share") {
      const bool shared = word == "share" || version_ < 4;  // then every prefix was
      const auto id = tokens.next<PrefixId>();
      scheduler.register_prefix(id, fields_of<SchedulerRequest>(tokens, word), shared);
    } else if (word == "release") {
      scheduler.release_prefix(tokens.next<PrefixId>());
    } else if (word == "costs") {
      scheduler.set_preemption_costs(fields_of<PreemptionCosts>(tokens, word));
    } else if (word == "import") {
      const auto salt = tokens.next<std::uint64_t>();
      const auto prefix = tokens.next<std::vector<TokenId>>();
      std::vector<std::uint8_t> offered;
      for (const auto is_offered : tokens.next<std::vector<std::uint32_t>>())
        offered.push_back(static_cast<std::uint8_t>(is_offered));
      scheduler.import_prefix(prefix, salt, offered);
    } else if (word == "read") {
      scheduler.end_store_read(tokens.next<RequestId>());
    } else if (word == "clear") {
      scheduler.clear_prefix_cache();
    } else if (word == "commit") {
      scheduler.commit(result_of(tokens));
    } else {
      throw Corrupt(str("'", word, "' is no kind of line"));
    }
    was_busy_ = was_busy_ && scheduler.has_work();
    tokens.expect_end();
    return true;
  }

  void extend(Tokens& tokens) {
    const auto id = tokens.next<RequestId>();
    const auto sample = tokens.next<std::uint32_t>();
    const bool scored = tokens.next<bool>();
    std::vector<TokenId> run;
    tokens.get(run);
    if (const std::uint32_t taken = scheduler_->extend(id, sample, run, scored); taken != run.size())
      throw Corrupt(str(taken, " of ", run.size(), " tokens are taken"));
  }

  bool plan(Tokens& tokens) {
    const auto now = tokens.next<double>();
    const StepPlan plan = scheduler_->plan(now);
    const std::string recorded(tokens.rest()), planned = to_text(plan);
    if (planned != recorded) {
      report.difference = str("recorded: ", recorded, "\nplanned:  ", planned);
      return false;
    }
    ++report.steps;
    visit_(now, plan, std::exchange(was_busy_, true));
    return true;
  }

  const TraceVisitor& visit_;
  int version_ = 0;
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
