// Stream capture and graphs. A graph here is a sequence, which is what the capture of one stream gives.
#include <algorithm>

#include "runtime/runtime.hpp"
#include "runtime/stream.hpp"

namespace cuda_emu {

GraphCounters& graph_counters() {
  static GraphCounters the_counters;
  return the_counters;
}

cudaError_t refuse_in_capture(CUstream_st& stream, cudaError_t error) {
  if (stream.capturing == nullptr) return cudaSuccess;
  stream.capture_is_broken = true;
  set_last_error(error);
  return error;
}

bool is_capturing(cudaStream_t stream) { return resolve(stream).capturing != nullptr; }

}  // namespace cuda_emu

using namespace cuda_emu;

extern "C" {

cudaError_t CUDARTAPI cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  const std::lock_guard lock(device_mutex());
  if (machine().graphs == Graphs::no_capture || stream == nullptr || stream->capturing != nullptr) {
    set_last_error(cudaErrorStreamCaptureUnsupported);
    return cudaErrorStreamCaptureUnsupported;
  }
  stream->capturing = new CUgraph_st;
  stream->capture_is_broken = false;
  ++graph_counters().captures;
  return cudaSuccess;
}

cudaError_t CUDARTAPI cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  const std::lock_guard lock(device_mutex());
  *graph = stream->capturing;
  stream->capturing = nullptr;
  if (*graph != nullptr && !stream->capture_is_broken) return cudaSuccess;
  const cudaError_t error = *graph == nullptr ? cudaErrorStreamCaptureUnmatched : cudaErrorStreamCaptureInvalidated;
  delete *graph;
  *graph = nullptr;
  set_last_error(error);
  return error;
}

cudaError_t CUDARTAPI cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t*, std::size_t* count) {
  *count = graph->nodes.size();
  return cudaSuccess;
}

cudaError_t CUDARTAPI cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}

cudaError_t CUDARTAPI cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long) {
  const std::lock_guard lock(device_mutex());
  if (machine().graphs == Graphs::no_executables) {
    set_last_error(cudaErrorMemoryAllocation);
    return cudaErrorMemoryAllocation;
  }
  *executable = new CUgraphExec_st{graph->nodes, current_device()};
  ++graph_counters().instantiations;
  return cudaSuccess;
}

cudaError_t CUDARTAPI cudaGraphExecUpdate(cudaGraphExec_t executable, cudaGraph_t graph,
                                          cudaGraphExecUpdateResultInfo* info) {
  const std::lock_guard lock(device_mutex());
  const bool fits =
      std::ranges::equal(executable->nodes, graph->nodes, {}, &CUgraph_st::Node::kind, &CUgraph_st::Node::kind);
  if (!fits || machine().graphs == Graphs::no_updates) {
    info->result = cudaGraphExecUpdateErrorTopologyChanged;
    set_last_error(cudaErrorGraphExecUpdateFailure);
    return cudaErrorGraphExecUpdateFailure;
  }
  info->result = cudaGraphExecUpdateSuccess;
  executable->nodes = graph->nodes;
  ++graph_counters().updates;
  return cudaSuccess;
}

/// What was submitted is not changed by a later update, and runs as one operation.
cudaError_t CUDARTAPI cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
  const std::lock_guard lock(device_mutex());
  if (const cudaError_t error = refuse_in_capture(resolve(stream), cudaErrorStreamCaptureUnsupported)) return error;
  ++graph_counters().launches;
  enqueue(stream, [nodes = executable->nodes] {
    for (const CUgraph_st::Node& node : nodes) node.operation();
  });
  return cudaSuccess;
}

cudaError_t CUDARTAPI cudaGraphExecDestroy(cudaGraphExec_t executable) {
  note_use_of(executable->device);
  delete executable;
  return cudaSuccess;
}

}  // extern "C"
