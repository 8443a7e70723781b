#include "kernels/matmul_leaves.cuh"
#include "kernels/weight_dispatch.hpp"

namespace pagedcore::cuda {
namespace {

/// Lets `kernel` take so much dynamic shared memory.
template <class Kernel>
cudaError_t grant(Kernel kernel, int bytes) {
  constexpr int kWithoutAsking = 48 << 10;
  if (bytes <= kWithoutAsking) return cudaSuccess;
  return cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
}

template <class T, int kBands>
cudaError_t stream(const MatmulArgs& args, cudaStream_t queue) {
  const int bytes = stream_waiting_bytes(args.leaves.count, kBands);
  constexpr auto kernel = matmul_leaves_stream<T, kBands>;
  if (const cudaError_t error = grant(kernel, bytes); error != cudaSuccess) return error;
  PC_LAUNCH(kernel, dim3(weight_tiles(args)), dim3(kStreamThreads), bytes, queue, args);
  return cudaGetLastError();
}

template <class T>
cudaError_t launch(const MatmulArgs& args, cudaStream_t queue) {
  if (args.m <= 8) return stream<T, 1>(args, queue);
  if (args.m <= kStreamRows) return stream<T, 4>(args, queue);
  const int tiles = weight_tiles(args), bytes = tiled_leaves_bytes(args.leaves.count);
  constexpr auto kernel = matmul_leaves_tiled<T>;
  if (const cudaError_t error = grant(kernel, bytes); error != cudaSuccess) return error;
  const dim3 grid((args.m + kBlockRows - 1) / kBlockRows, (tiles + kLeavesBlockTiles - 1) / kLeavesBlockTiles);
  PC_LAUNCH(kernel, grid, dim3(kTiledThreads), bytes, queue, args, tiles);
  return cudaGetLastError();
}

}  // namespace

cudaError_t launch_matmul_leaves(const MatmulArgs& args, DType in_type, cudaStream_t stream) {
  if (args.m == 0) return cudaSuccess;
  if (args.leaves.count > kMostLeavesOfKernel) return cudaErrorInvalidValue;
  return dispatch_type(in_type, [&]<class T>() { return launch<T>(args, stream); });
}

}  // namespace pagedcore::cuda
