// What a step wants of one row of logits: a draw, a prompt token's score or the candidates of a beam. Done on the host,
// or by the backend where the logits lie.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "engine/request_table.hpp"
#include "pagedcore/backend.hpp"
#include "sampling/logits_processors.hpp"
#include "sampling/scratch.hpp"

namespace pagedcore {

struct RowTask {
  RequestState* request = nullptr;
  SequenceId sequence{};
  std::uint32_t sample = 0;              // of a draw, or of an output that is scored
  std::int64_t position = -1;            // of a prompt row to score, else -1
  std::int64_t jumped = -1;              // of an output's row to score: the place of its token there, else -1
  std::int64_t logit_row = 0;            // among the step's rows whose logits are wanted
  sampling::Matcher* matcher = nullptr;  // of a draw or a beam that is constrained
  sampling::TokenMask allowed = {};      // by it

  // What came out.
  SampleOutcome outcome = {};
  std::vector<sampling::BeamCandidate> candidates = {};  // of a beam
  std::string error = {};

  bool scores() const noexcept { return position >= 0 || jumped >= 0; }
  bool lacked_memory() const noexcept { return error == kNoMemory; }

  /// Asks the matcher, once. What goes wrong is told in `error`. For any thread, as run().
  void find_allowed(std::size_t vocab_size) noexcept;

  /// From the row itself, once what is allowed has been found. What goes wrong is told in `error`. Writes to this task
  /// and the scratch only: for any thread.
  void run(std::span<const float> logits, sampling::Scratch& scratch);

  /// Whether no backend is asked: candidates of a beam that is constrained.
  bool is_for_host() const noexcept { return matcher != nullptr && request->beams; }
  /// The same for Backend::sample_tokens, where `row` is that of the task's logits. The result refers to the request
  /// and to `mask`, which this fills.
  SamplingTask for_backend(std::int64_t row, std::size_t vocab_size, std::vector<std::uint32_t>& mask) const;
  void take(SamplingResult&& result);

 private:
  void note(const char* why) noexcept;
  std::int32_t num_scored_top(std::size_t vocab_size) const;
  TokenId scored_token() const;
  SampleContext context() const;
};

}  // namespace pagedcore
