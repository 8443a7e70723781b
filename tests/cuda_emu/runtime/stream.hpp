// What a stream, an event and a graph are to the fake runtime.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <vector>

namespace cuda_emu {

/// What an executable graph may be updated to: as many nodes, each of the same kind.
enum class NodeKind { kernel, copy_in, copy_out, copy_within, memset };

}  // namespace cuda_emu

struct CUgraph_st {
  struct Node {
    cuda_emu::NodeKind kind;
    std::function<void()> operation;
  };
  std::vector<Node> nodes;
};

struct CUgraphExec_st {
  std::vector<CUgraph_st::Node> nodes;
  int device = 0;
};

struct CUstream_st {
  std::deque<std::function<void()>> operations;
  std::uint64_t enqueued = 0, done = 0;
  CUgraph_st* capturing = nullptr;
  bool capture_is_broken = false;
  int device = 0;
  bool is_first = false;  // of the streams that there were when it was made
};

struct CUevent_st {
  CUstream_st* stream = nullptr;
  std::uint64_t ticket = 0;  // has happened once so many operations of the stream are done
  bool captured = false;     // recorded into a graph: nobody can wait for it
  int device = 0;
};

namespace cuda_emu {

/// The default stream for null.
CUstream_st& resolve(cudaStream_t stream);
void enqueue(cudaStream_t stream, NodeKind kind, std::function<void()> operation);
/// The answer to a call that a capture of the stream does not survive; success where there is no capture.
cudaError_t refuse_in_capture(CUstream_st& stream, cudaError_t error);

}  // namespace cuda_emu
