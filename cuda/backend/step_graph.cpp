#include "backend/step_graph.hpp"

#include <algorithm>
#include <memory>
#include <type_traits>

namespace pagedcore::cuda {
namespace {

constexpr std::size_t kMostExecutables = 8;  // decode steps differ in whether contexts are split, and in little else

struct Destroy {
  void operator()(cudaGraph_t graph) const { cudaGraphDestroy(graph); }
};
using Graph = std::unique_ptr<std::remove_pointer_t<cudaGraph_t>, Destroy>;

void forget_error() { static_cast<void>(cudaGetLastError()); }

}  // namespace

StepGraphs::StepGraphs(Device& device, Staging& staging) : device_(device), staging_(staging) {}

StepGraphs::~StepGraphs() {
  for (Executable& executable : executables_) discard(executable);
}

/// It may still be running.
void StepGraphs::discard(Executable& executable) {
  cudaStreamSynchronize(device_.stream());
  cudaGraphExecDestroy(executable.graph);
}

bool StepGraphs::run(const std::function<void()>& operations) {
  // Whatever fails, no piece of the ring may be left that is neither submitted nor forgotten.
  try {
    const auto submitted = std::make_shared<Event>(device_);
    const Graph graph{record(operations)};
    const cudaGraphExec_t executable = graph != nullptr ? executable_of(graph.get()) : nullptr;
    if (executable != nullptr && cudaGraphLaunch(executable, device_.stream()) == cudaSuccess) {
      staging_.submit_recorded(device_.stream(), submitted);
      return true;
    }
    forget_error();  // one that stays shows in the next call
  } catch (...) {
    staging_.forget_recorded();
    throw;
  }
  staging_.forget_recorded();
  return false;
}

/// Null where the operations cannot be recorded.
cudaGraph_t StepGraphs::record(const std::function<void()>& operations) {
  // Relaxed: what other threads do, and allocations in between, are no concern of this stream's.
  if (cudaStreamBeginCapture(device_.stream(), cudaStreamCaptureModeRelaxed) != cudaSuccess) {
    forget_error();
    return nullptr;
  }
  const auto end = [&] {
    device_.set_recording(false);
    cudaGraph_t graph = nullptr;
    if (cudaStreamEndCapture(device_.stream(), &graph) != cudaSuccess) {
      forget_error();
      return cudaGraph_t{nullptr};
    }
    return graph;
  };
  device_.set_recording(true);
  bool complete = true;
  try {
    operations();
  } catch (const RecordingFailed&) {
    complete = false;
  } catch (...) {
    if (const cudaGraph_t graph = end()) cudaGraphDestroy(graph);
    throw;
  }
  const cudaGraph_t graph = end();
  if (complete || graph == nullptr) return graph;
  cudaGraphDestroy(graph);
  return nullptr;
}

/// Null where the driver makes none.
cudaGraphExec_t StepGraphs::executable_of(cudaGraph_t graph) {
  std::size_t nodes = 0;
  device_.check(cudaGraphGetNodes(graph, nullptr, &nodes), "counting the operations of a step");
  auto place = std::ranges::find(executables_, nodes, &Executable::nodes);
  if (place != executables_.end()) {
    cudaGraphExecUpdateResultInfo why{};
    place->last_use = ++uses_;
    if (cudaGraphExecUpdate(place->graph, graph, &why) == cudaSuccess) return place->graph;
    forget_error();
  } else if (executables_.size() == kMostExecutables) {
    place = std::ranges::min_element(executables_, {}, &Executable::last_use);
  }
  if (place != executables_.end()) {
    discard(*place);
    executables_.erase(place);
  }
  executables_.reserve(kMostExecutables);  // so that none is lost
  cudaGraphExec_t made = nullptr;
  if (cudaGraphInstantiate(&made, graph, 0) != cudaSuccess) {
    forget_error();
    return nullptr;
  }
  executables_.push_back({made, nodes, ++uses_});
  return made;
}

}  // namespace pagedcore::cuda
