// out[m, n] = epilogue(in[m, k] W[n, k]^T) over packed weights (matmul_layout.hpp).
//
// Same row, same bits. An output is the sum of kSplits partial sums over fixed pieces of k, added in order, each a
// chain of mma.m16n8k16 that walks its piece 16 columns at a time. The kernel for few rows gives each piece to a warp;
// the kernel for many rows walks them one after another. Of a weight with leaves the pieces are the leaves, and they
// are added in the tree of WeightForm (matmul_leaves.cuh). So neither m nor the other rows show in the bits of a row.
// (That the sum inside one instruction does not depend on the place of the row in its operand is taken from the
// hardware.)
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "kernels/matmul_layout.hpp"
#include "pagedcore/backend.hpp"
#include "pagedcore/tensor.hpp"

namespace pagedcore::cuda {

/// Of a weight that has several.
struct MatmulLeaves {
  const MatmulLeaf* ends = nullptr;  // of the device's memory
  std::int32_t count = 1;            // at most kMostLeavesOfKernel
  std::int32_t groups = 0;           // of all leaves
  bool aligned = false;              // every leaf ends at a multiple of 8
};

/// Sizes and strides in elements. Addresses are of device memory; nothing is aligned beyond its element unless said.
struct MatmulArgs {
  const void* in = nullptr;  // T [m, k]
  std::int64_t in_stride = 0;
  std::int32_t m = 0;
  std::int32_t k = 0;
  std::int32_t n = 0;                   // outputs; of a gated pair, those of one half
  const std::byte* weights = nullptr;   // packed, 16-byte aligned
  const void* scales = nullptr;         // as matmul_layout.hpp describes, 8-byte aligned; none for native
  std::int32_t k_groups_per_scale = 1;  // formats with groups: a scale serves this many groups of 32 columns
  const float* bias = nullptr;          // [n], of a gated pair [2 n]: gate, then up; or none
  void* out = nullptr;                  // f32, or T where out_is_narrow
  std::int64_t out_stride = 0;
  bool out_is_narrow = false;
  Epilogue::Kind finish = Epilogue::Kind::store;
  Activation activation = Activation::silu;
  std::int32_t block_tiles = 1;  // 1, 2 or 4: weight tiles of a block where there are few rows; no bit depends on it.
                                 // Several leaves have one
  MatmulLeaves leaves;
};

/// Up to this many rows the weights are streamed; beyond, tiles of them are reused from shared memory.
inline constexpr std::int32_t kStreamRows = 32;

/// Tiles of the packed weight.
constexpr std::int32_t weight_tiles(const MatmulArgs& args) {
  const std::int32_t outputs = args.finish == Epilogue::Kind::gated ? kTileRows / 2 : kTileRows;
  return (args.n + outputs - 1) / outputs;
}

/// MatmulArgs::block_tiles for a device of so many multiprocessors. A block asks for its inputs once, so more tiles
/// mean fewer requests: as few as keep inputs within a tenth of the weights' bytes, if every multiprocessor still has a
/// block.
constexpr std::int32_t choose_block_tiles(const MatmulArgs& args, WeightFormat format, std::int32_t multiprocessors) {
  std::int32_t tiles = 1;
  while (tiles < 4 && 10 * args.m * kGroupK * 2 > tiles * tile_bytes(format) &&
         weight_tiles(args) / (2 * tiles) >= multiprocessors)
    tiles *= 2;
  return tiles;
}

/// Enqueues the product for inputs of type f16 or bf16 and a packed weight. With m == 0 it does nothing.
/// cudaErrorInvalidValue for several leaves in another format than native, and for too many.
cudaError_t launch_matmul(const MatmulArgs& args, DType in_type, WeightFormat format, cudaStream_t stream);
/// The same for several leaves.
cudaError_t launch_matmul_leaves(const MatmulArgs& args, DType in_type, cudaStream_t stream);

/// Enqueues the epilogue alone, for finished sums of in W^T from elsewhere: f32 [m, n], of a gated pair [m, 2 n] with
/// the gate's first, rows without gaps. `type` is that of the narrow output. Input and weights are not read.
cudaError_t launch_matmul_finish(const MatmulArgs& args, const float* sums, DType type, cudaStream_t stream);

}  // namespace pagedcore::cuda
