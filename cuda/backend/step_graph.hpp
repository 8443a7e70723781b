// The operations of a step recorded as a CUDA graph and submitted as one: a decode step is hundreds of short kernels,
// and submitting each costs the host about as long as it runs.
//
// Every step is recorded anew, which fixes its arguments, and then becomes an update of an executable graph with as
// many nodes, if there is one that it fits. So nothing has to stay where it was from step to step.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "backend/staging.hpp"

namespace pagedcore::cuda {

class StepGraphs {
 public:
  StepGraphs(Device& device, Staging& staging);
  ~StepGraphs();
  StepGraphs(const StepGraphs&) = delete;
  StepGraphs& operator=(const StepGraphs&) = delete;

  /// Records `operations` and submits them. False: something in them cannot be recorded, or the driver makes no graph
  /// of them; nothing has been enqueued then. What the operations throw is passed on, with nothing enqueued.
  bool run(const std::function<void()>& operations);

 private:
  struct Executable {
    cudaGraphExec_t graph = nullptr;
    std::size_t nodes = 0;
    std::uint64_t last_use = 0;
  };
  cudaGraph_t record(const std::function<void()>& operations);
  cudaGraphExec_t executable_of(cudaGraph_t graph);
  void discard(Executable& executable);

  Device& device_;
  Staging& staging_;
  std::vector<Executable> executables_;
  std::uint64_t uses_ = 0;
};

}  // namespace pagedcore::cuda
