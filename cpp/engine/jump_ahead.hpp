// Tokens that a constraint leaves no choice of: found behind a draw, known to the scheduler before the next plan, and
// computed in one chunk with the token before them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "engine/request_table.hpp"
#include "engine/row_task.hpp"
#include "pagedcore/backend.hpp"
#include "pagedcore/scheduler.hpp"
#include "pagedcore/trace.hpp"

namespace pagedcore {

/// The most tokens of a run at a time: what a matcher may take of a step, and the rows that may hold log-probabilities.
inline constexpr std::uint32_t kLongestRun = 64;

/// Rows [first, end) of a scheduled sequence, of which each predicts a token that its sample has and whose
/// log-probabilities are asked for and not there; `index`: of the first such token in the output.
struct UnscoredRows {
  std::uint32_t first = 0, end = 0;
  std::int64_t index = 0;
};
UnscoredRows unscored_rows(const ScheduledSequence& scheduled, const RequestState& request);

/// Tells matchers what was drawn, which ends what may fail of a step, and follows their runs on the backend's threads.
/// `drawing` is used for its memory. A run that there is no memory for is drawn token by token.
void look_ahead(std::vector<RowTask>& tasks, std::size_t vocab_size, Backend& backend, std::vector<RowTask*>& drawing);

/// Makes the run behind a sample's last token known: to the scheduler, and as output. Throws std::bad_alloc; then
/// nothing has changed.
void jump(RequestState& request, std::uint32_t sample, Scheduler& scheduler, std::optional<TraceWriter>& trace);

/// New tokens of a sample that can be told of: those whose log-probabilities are there, where they are asked for.
std::size_t news_of(const RequestState& request, const SampleState& sample) noexcept;

}  // namespace pagedcore
