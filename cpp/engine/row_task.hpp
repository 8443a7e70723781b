// What a step wants of one row of logits: a draw, a prompt token's score or the candidates of a beam. Done on the host,
// or by the backend where the logits lie.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "engine/request_table.hpp"
#include "pagedcore/backend.hpp"
#include "sampling/scratch.hpp"

namespace pagedcore {

struct RowTask {
  RequestState* request = nullptr;
  SequenceId sequence{};
  std::uint32_t sample = 0;    // of a draw
  std::int64_t position = -1;  // of a prompt row to score, else -1
  std::int64_t logit_row = 0;  // among the step's rows whose logits are wanted

  // What came out.
  SampleOutcome outcome;
  std::vector<sampling::BeamCandidate> candidates;  // of a beam
  std::string error;

  /// From the row itself. What goes wrong is told in `error`. Writes to this task and the scratch only: for any thread.
  void run(std::span<const float> logits, sampling::Scratch& scratch);

  /// The same for Backend::sample_tokens, where `row` is that of the task's logits. The result refers to the request
  /// and to `mask`, which this fills.
  SamplingTask for_backend(std::int64_t row, std::size_t vocab_size, std::vector<std::uint32_t>& mask) const;
  void take(SamplingResult&& result);

 private:
  TokenId scored_token() const;
  SampleContext context() const;
};

}  // namespace pagedcore
