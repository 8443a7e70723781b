// Drafts are carried out in two steps: gather_memory() may fail and changes nothing that shows; apply() cannot fail
// unless the books are wrong, which breaks the state (SchedulerState::carry_out) and nothing else.
#pragma once

#include <vector>

#include "scheduler/draft.hpp"
#include "scheduler/intake.hpp"
#include "scheduler/state.hpp"

namespace pagedcore::sched {

/// Host memory for everything that the plan changes: tables of the sequences that it creates, and room in all lists.
/// Throws std::bad_alloc.
void gather_memory(SchedulerState& state, const Draft& draft, StepPlan& plan);
/// Changes the state as the draft says and completes the plan. Blocks suffice, since the draft was tried on scratch,
/// and memory is there.
void apply(SchedulerState& state, const Draft& draft, StepPlan& plan) noexcept;

/// The same for what a step has brought.
void gather_memory(SchedulerState& state, const Intake& intake, std::vector<SampleUpdate>& updates);
void apply(SchedulerState& state, Intake& intake, const StepResult& result,
           std::vector<SampleUpdate>& updates) noexcept;

}  // namespace pagedcore::sched
