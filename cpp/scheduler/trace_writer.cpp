// The lines of a trace, and the file they go to. The first word of a line says what it is. FIELDS are those of a
// struct's list (pagedcore/fields.hpp) as name=value, elements of a list with commas between them.
//
//   pagedcore-trace 4
//   scheduler FIELDS   cache FIELDS   submit FIELDS   register prefix FIELDS   costs FIELDS
//   share prefix FIELDS           a prefix that every salt may use; up to version 3 that was `register`
//   release prefix     abort id       preempt id mode                         clear
//   extend id sample scored n token{n}
//   import salt n tokens{n} n offered{n}                                      read id
//   plan now TEXT               TEXT: as to_text() gives it
//   commit step n (sequence sample token stop){n} n failed{n} n (request n (parent token){n}){n} n swap_failed{n}
//
// Nothing here depends on the locale of the process.
#include <array>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <exception>

#include "base/field_lists.hpp"
#include "base/private_file.hpp"
#include "base/text.hpp"
#include "pagedcore/error.hpp"
#include "pagedcore/trace.hpp"

namespace pagedcore {
namespace {

class Line {
 public:
  explicit Line(const char* word) : text_(word) {}

  Line& operator<<(const std::string& text) {
    text_.append(1, ' ').append(text);
    return *this;
  }
  Line& operator<<(const char* text) { return *this << std::string(text); }
  Line& operator<<(bool value) { return *this << (value ? "1" : "0"); }
  Line& operator<<(double value) {
    std::array<char, 32> digits;
    constexpr int exact = 17;  // as many as tell any two apart
    return *this << std::string(digits.data(), std::to_chars(digits.data(), digits.data() + digits.size(), value,
                                                             std::chars_format::general, exact)
                                                   .ptr);
  }
  template <class T>
  Line& operator<<(T value) {
    return *this << to_text(value);
  }
  template <class Range, class Each>
  void list(const Range& range, const Each& each) {
    *this << range.size();
    for (const auto& element : range) each(element);
  }
  const std::string& text() const { return text_; }

 private:
  std::string text_;
};

/// FNV-1a (Fowler, Noll, Vo) over 64-bit words.
template <class T>
std::uint64_t digest(std::uint64_t hash, const std::vector<T>& values) {
  for (const T value : values) hash = (hash ^ static_cast<std::uint64_t>(value)) * 0x100000001b3u;
  return hash;
}

}  // namespace

std::string to_text(const StepPlan& plan) {
  Line line("step");
  line << plan.step;
  const auto swaps = [&](const char* word, const auto& requests, const auto& moves) {
    if (requests.empty()) return;
    line << word;
    line.list(requests, [&](const SwappedRequest& r) { line << r.request << r.num_moves; });
    line.list(moves, [&](const BlockSwap& swap) { line << swap.block << swap.slot; });
  };
  swaps("out", plan.swapped_out, plan.swap_outs);
  swaps("in", plan.swapped_in, plan.swap_ins);
  line << "copies";
  line.list(plan.copies, [&](const BlockCopy& copy) { line << copy.src << copy.dst << copy.num_tokens; });
  line << "sequences";
  line.list(plan.sequences, [&](const ScheduledSequence& s) {
    line << s.request << s.sequence << s.first_sample << s.num_samples << s.num_rows << s.first_position << s.num_scored
         << s.table_size;
  });
  line << "preempted";
  line.list(plan.preempted, [&](RequestId id) { line << id; });
  if (!plan.store_reads.empty()) {
    line << "reads";
    line.list(plan.store_reads, [&](RequestId id) { line << id; });
  }
  line << "digest" << digest(digest(0xcbf29ce484222325u, plan.tokens), plan.block_tables);
  return line.text();
}

struct TraceWriter::Impl {
  ~Impl() {
    if (file != nullptr) std::fclose(file);
  }
  /// `make` fills in the line. Whatever goes wrong ends the trace only.
  template <class Make>
  void write(const char* word, const Make& make) noexcept {
    if (file == nullptr) return;
    try {
      Line line(word);
      make(line);
      const std::string text = line.text() + '\n';
      if (std::fwrite(text.data(), 1, text.size(), file) != text.size()) end(std::strerror(errno));
    } catch (const std::exception& exception) {
      end(exception.what());
    }
  }
  void end(const char* reason) noexcept {
    std::fclose(file);
    file = nullptr;
    try {
      error = str(path, ": the trace ends here: ", reason);
    } catch (const std::exception&) {
      error = "no memory";  // fits without an allocation
    }
  }

  std::string path;
  std::FILE* file = nullptr;
  std::string error;
};

TraceWriter::TraceWriter(const std::string& path, const SchedulerConfig& config, const KvCacheConfig& cache)
    : impl_(std::make_unique<Impl>()) {
  impl_->path = path;
  impl_->file = new_private_file(path, "a trace");
  impl_->write("pagedcore-trace", [](Line& line) { line << 4; });
  impl_->write("scheduler", [&](Line& line) { line << fields_to_line(config); });
  impl_->write("cache", [&](Line& line) { line << fields_to_line(cache); });
}
TraceWriter::~TraceWriter() = default;
TraceWriter::TraceWriter(TraceWriter&&) noexcept = default;
TraceWriter& TraceWriter::operator=(TraceWriter&&) noexcept = default;

void TraceWriter::submit(const SchedulerRequest& request) noexcept {
  impl_->write("submit", [&](Line& line) { line << fields_to_line(request); });
}
void TraceWriter::abort(RequestId id) noexcept {
  impl_->write("abort", [&](Line& line) { line << id; });
}
void TraceWriter::extend(RequestId id, std::uint32_t sample, std::span<const TokenId> tokens, bool scored) noexcept {
  impl_->write("extend", [&](Line& line) {
    line << id << sample << scored;
    line.list(tokens, [&](TokenId token) { line << token; });
  });
}
void TraceWriter::force_preempt(RequestId id, PreemptionMode mode) noexcept {
  impl_->write("preempt", [&](Line& line) { line << id << mode; });
}
void TraceWriter::register_prefix(PrefixId id, const SchedulerRequest& prefix, bool shared) noexcept {
  impl_->write(shared ? "share" : "register", [&](Line& line) { line << id << fields_to_line(prefix); });
}
void TraceWriter::release_prefix(PrefixId id) noexcept {
  impl_->write("release", [&](Line& line) { line << id; });
}
void TraceWriter::set_preemption_costs(const PreemptionCosts& costs) noexcept {
  impl_->write("costs", [&](Line& line) { line << fields_to_line(costs); });
}
void TraceWriter::clear_prefix_cache() noexcept {
  impl_->write("clear", [](Line&) {});
}
void TraceWriter::import_prefix(std::span<const TokenId> tokens, std::uint64_t salt,
                                std::span<const std::uint8_t> offered) noexcept {
  impl_->write("import", [&](Line& line) {
    line << salt;
    line.list(tokens, [&](TokenId token) { line << token; });
    line.list(offered, [&](std::uint8_t is_offered) { line << (is_offered != 0); });
  });
}
void TraceWriter::end_store_read(RequestId id) noexcept {
  impl_->write("read", [&](Line& line) { line << id; });
}
void TraceWriter::plan(double now, const StepPlan& plan) noexcept {
  impl_->write("plan", [&](Line& line) { line << now << to_text(plan); });
}
void TraceWriter::commit(const StepResult& result) noexcept {
  impl_->write("commit", [&](Line& line) {
    line << result.step;
    line.list(result.tokens, [&](const SampledToken& t) { line << t.sequence << t.sample << t.token << t.stop; });
    line.list(result.failed, [&](RequestId id) { line << id; });
    line.list(result.beams, [&](const BeamResult& beam) {
      line << beam.request;
      line.list(beam.children, [&](const BeamChild& child) { line << child.parent << child.token; });
    });
    line.list(result.swap_failed, [&](RequestId id) { line << id; });
  });
}

const std::string& TraceWriter::error() const noexcept { return impl_->error; }

}  // namespace pagedcore
