#include "engine/timeline.hpp"

#include <algorithm>
#include <exception>

#include "base/private_file.hpp"
#include "base/text.hpp"
#include "pagedcore/error.hpp"
#include "pagedcore/fields.hpp"

namespace pagedcore {
namespace {

using Seconds = std::chrono::duration<double>;

/// Microseconds, the unit of the format, with those behind the point that a clock has.
std::string microseconds(Seconds seconds) {
  const auto nanoseconds = static_cast<std::int64_t>(seconds.count() * 1e9);
  const std::string digits = std::to_string(nanoseconds % 1000 + 1000);
  return str(nanoseconds / 1000, '.', digits.substr(1));
}

}  // namespace

Timeline::Timeline(const std::string& path, std::size_t ranks)
    : file_(new_private_file(path, "a timeline")), operations_(ranks) {
  for (std::size_t rank = 0; rank < ranks; ++rank)
    put(str(R"({"name":"thread_name","ph":"M","pid":1,"tid":)", rank, R"(,"args":{"name":")",
            rank == 0 ? "engine" : str("rank ", rank), R"("}})"));
}

Timeline::~Timeline() {
  if (file_ == nullptr) return;
  std::fputs(is_first_ ? "[]\n" : "\n]\n", file_);
  std::fclose(file_);
}

void Timeline::put(const std::string& event) {
  if (file_ == nullptr) return;
  const bool is_written = std::fputs(is_first_ ? "[\n" : ",\n", file_) >= 0 && std::fputs(event.c_str(), file_) >= 0;
  is_first_ = false;
  if (is_written) return;
  std::fclose(file_);
  file_ = nullptr;
}

void Timeline::write(const Span& span, const std::string& arguments) {
  put(str(R"({"name":")", span.name, R"(","ph":"X","pid":1,"tid":)", span.rank, R"(,"ts":)",
          microseconds(span.begin - start_), R"(,"dur":)", microseconds(span.end - span.begin), R"(,"args":{)",
          arguments, "}}"));
}

void Timeline::add(const StepPicture& step) noexcept {
  if (file_ != nullptr) {
    try {
      const Time end = std::chrono::steady_clock::now();
      const auto after = [&](double seconds) {
        return end - std::chrono::duration_cast<Time::duration>(Seconds(step.seconds - seconds));
      };
      write({str("step ", raw(step.step)), 0, after(0.0), end},
            str(R"("sequences":)", step.sequences, R"(,"prefill_tokens":)", step.prefill_tokens, R"(,"decode_tokens":)",
                step.decode_tokens, R"(,"preempted":)", step.preempted, R"(,"swaps":)", step.swaps, R"(,"copies":)",
                step.copies));
      write({"plan", 0, after(0.0), after(step.plan_seconds)}, "");
      for (std::size_t rank = 0; rank < operations_.size(); ++rank)
        for (const TimedOperation& o : operations_[rank])
          write({o.name, rank, std::max(o.begin, start_), o.end},
                o.inner > 0 ? str(R"("rows":)", o.rows, R"(,"columns":)", o.columns, R"(,"inner":)", o.inner)
                            : str(R"("rows":)", o.rows, R"(,"columns":)", o.columns));
    } catch (const std::exception&) {  // no memory for a line: what of the step is written stays
    }
  }
  for (auto& of_rank : operations_) of_rank.clear();
}

}  // namespace pagedcore
