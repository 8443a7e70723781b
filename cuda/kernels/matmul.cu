#include "kernels/matmul.hpp"
#include "kernels/matmul_stream.cuh"
#include "kernels/matmul_tiled.cuh"
#include "kernels/weight_dispatch.hpp"

namespace pagedcore::cuda {
namespace {

template <class T, WeightFormat kFormat, int kBands>
void stream(const MatmulArgs& args, int tiles, cudaStream_t stream) {
  PC_LAUNCH((matmul_stream<T, kFormat, kBands>), dim3(tiles), dim3(kStreamThreads), 0, stream, args);
}

template <class T, WeightFormat kFormat>
cudaError_t launch(const MatmulArgs& args, cudaStream_t queue) {
  const int outputs_per_tile = args.finish == Epilogue::Kind::gated ? kTileRows / 2 : kTileRows;
  const int tiles = (args.n + outputs_per_tile - 1) / outputs_per_tile;
  if (args.m <= 8) {
    stream<T, kFormat, 1>(args, tiles, queue);
  } else if (args.m <= 16) {
    stream<T, kFormat, 2>(args, tiles, queue);
  } else if (args.m <= kStreamRows) {
    stream<T, kFormat, 4>(args, tiles, queue);
  } else {
    const dim3 grid((args.m + kBlockRows - 1) / kBlockRows, (tiles + kBlockTiles - 1) / kBlockTiles);
    PC_LAUNCH((matmul_tiled<T, kFormat>), grid, dim3(kTiledThreads), kStages * stage_bytes(kFormat), queue, args,
              tiles);
  }
  return cudaGetLastError();
}

}  // namespace

cudaError_t launch_matmul(const MatmulArgs& args, DType in_type, WeightFormat format, cudaStream_t stream) {
  if (args.m == 0) return cudaSuccess;
  return dispatch_weights(in_type, format,
                          [&]<class T, WeightFormat kFormat>() { return launch<T, kFormat>(args, stream); });
}

}  // namespace pagedcore::cuda
