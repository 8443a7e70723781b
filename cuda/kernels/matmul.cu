#include "kernels/matmul.hpp"
#include "kernels/matmul_stream.cuh"
#include "kernels/matmul_tiled.cuh"
#include "kernels/weight_dispatch.hpp"

namespace pagedcore::cuda {
namespace {

template <class T, WeightFormat kFormat, int kBands, int kTiles>
void stream(const MatmulArgs& args, cudaStream_t stream) {
  const int tiles = weight_tiles(args);
  PC_LAUNCH((matmul_stream<T, kFormat, kBands, kTiles>), dim3((tiles + kTiles - 1) / kTiles), dim3(kStreamThreads), 0,
            stream, args, tiles);
}

template <class T, WeightFormat kFormat, int kBands>
void stream(const MatmulArgs& args, cudaStream_t queue) {
  if (args.block_tiles == 4)
    stream<T, kFormat, kBands, 4>(args, queue);
  else if (args.block_tiles == 2)
    stream<T, kFormat, kBands, 2>(args, queue);
  else
    stream<T, kFormat, kBands, 1>(args, queue);
}

template <class T, WeightFormat kFormat>
cudaError_t launch(const MatmulArgs& args, cudaStream_t queue) {
  if (args.m <= 8) {
    stream<T, kFormat, 1>(args, queue);
  } else if (args.m <= kStreamRows) {
    stream<T, kFormat, 4>(args, queue);
  } else {
    const int tiles = weight_tiles(args);
    const dim3 grid((args.m + kBlockRows - 1) / kBlockRows, (tiles + kBlockTiles - 1) / kBlockTiles);
    PC_LAUNCH((matmul_tiled<T, kFormat>), grid, dim3(kTiledThreads), kStages * stage_bytes(kFormat), queue, args,
              tiles);
  }
  return cudaGetLastError();
}

}  // namespace

cudaError_t launch_matmul(const MatmulArgs& args, DType in_type, WeightFormat format, cudaStream_t stream) {
  if (args.m == 0) return cudaSuccess;
  if (args.leaves.count > 1)
    return format == WeightFormat::native ? launch_matmul_leaves(args, in_type, stream) : cudaErrorInvalidValue;
  return dispatch_weights(in_type, format,
                          [&]<class T, WeightFormat kFormat>() { return launch<T, kFormat>(args, stream); });
}

}  // namespace pagedcore::cuda
