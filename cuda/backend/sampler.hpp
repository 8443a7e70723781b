// Sampling where the logits lie: the tasks of Backend::sample_tokens for the kernels of kernels/sampling.hpp.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "backend/staging.hpp"

namespace pagedcore::cuda {

class Sampler {
 public:
  /// Uses up to `memory_bytes` of device memory at a time. A task that needs more is left to the caller.
  Sampler(Device& device, Staging& staging, std::size_t memory_bytes);

  /// As Backend::sample_tokens; the logits and the numbers of tasks and results have been checked.
  void run(const Tensor& logits, std::span<const SamplingTask> tasks, std::span<SamplingResult> results);

 private:
  struct Needs;
  struct Member;
  Needs needs_of(const SamplingTask& task, std::int32_t vocab) const;
  void run_piece(const Tensor& logits, std::span<Member> members, const Needs& needs);

  Device& device_;
  Staging& staging_;
  std::size_t memory_bytes_;
};

}  // namespace pagedcore::cuda
