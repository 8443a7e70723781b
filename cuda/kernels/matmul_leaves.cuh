// Products over a weight with several leaves of k: the kernels of matmul_stream.cuh and matmul_tiled.cuh, for weights
// of 16 bits, with another order of sums. A leaf is one chain of mma.m16n8k16, and leaves are added in the tree of
// WeightForm.
//
// Leaves come in order, so they combine like the carries of a binary counter: for every bit that is set in the number
// of leaves so far the sums of a complete subtree wait, and the last leaf takes in all of them. The lowest levels wait
// in registers, where most of the additions are; those above in shared memory, each thread's for itself.
#pragma once

#include "kernels/matmul_stream.cuh"
#include "kernels/matmul_tiled.cuh"

namespace pagedcore::cuda {

/// Groups of k in order, with the columns of inputs that each takes.
class LeafCursor {
 public:
  __device__ LeafCursor(const MatmulLeaves& leaves, int leaf) : leaves_(leaves), leaf_(leaf) {
    const MatmulLeaf before = leaf == 0 ? MatmulLeaf{} : at(leaf - 1);
    k_group_ = before.group;
    columns_.column = before.column;
    enter();
  }
  __device__ int group() const { return k_group_; }
  __device__ GroupColumns columns() const { return columns_; }
  __device__ bool ends_leaf() const { return k_group_ + 1 == k_group_end_; }
  __device__ void advance() {
    columns_.column += kGroupK;
    if (++k_group_ != k_group_end_ || k_group_ == leaves_.groups) return;
    columns_.column = columns_.end;
    ++leaf_;
    enter();
  }

 private:
  __device__ MatmulLeaf at(int leaf) const {
    const int2 ends = __ldg(reinterpret_cast<const int2*>(leaves_.ends) + leaf);
    return {ends.x, ends.y};
  }
  __device__ void enter() {
    const MatmulLeaf leaf = at(leaf_);
    columns_.end = leaf.column;
    k_group_end_ = leaf.group;
  }

  const MatmulLeaves& leaves_;
  int leaf_, k_group_, k_group_end_;
  GroupColumns columns_;
};

/// Sums of kCount floats a thread that wait for later leaves.
template <int kCount, int kRegisterLevels>
struct WaitingSums {
  float low[kRegisterLevels][kCount] = {};
  float* high = nullptr;  // the thread's first float of the lowest level in shared memory, [level][kCount][threads]
  int threads = 0;        // of the block

  /// Takes in the sums of the `leaf`th leaf of a subtree, and leaves in `sums` the whole after the last one.
  __device__ void take(float (&sums)[kCount], int leaf, bool last) {
    bool carries = true;
#pragma unroll
    for (int level = 0; level < kRegisterLevels; ++level) {
      if (!carries) continue;
      if (leaf >> level & 1) {
#pragma unroll
        for (int i = 0; i < kCount; ++i) sums[i] = low[level][i] + sums[i];
      } else if (!last) {
#pragma unroll
        for (int i = 0; i < kCount; ++i) low[level][i] = sums[i];
        carries = false;
      }
    }
    if (!carries) return;
    float* at = high;
    for (int waiting = leaf >> kRegisterLevels; waiting != 0 && (last || waiting & 1);
         waiting >>= 1, at += kCount * threads) {
      if (!(waiting & 1)) continue;
#pragma unroll
      for (int i = 0; i < kCount; ++i) sums[i] = at[i * threads] + sums[i];
    }
    if (last) return;
#pragma unroll
    for (int i = 0; i < kCount; ++i) at[i * threads] = sums[i];
  }
};

/// Levels of sums that wait in shared memory while `leaves` leaves of a subtree are summed.
constexpr PC_HOST_DEVICE int shared_levels(int leaves, int register_levels) {
  int levels = 0;
  for (int waiting = (leaves - 1) >> register_levels; waiting > 0; waiting >>= 1) ++levels;
  return levels;
}

inline constexpr int kStreamLevels = 1;  // in registers
/// Leaves of one warp, which are those of one node of the tree: as few as let kSplits warps have all.
constexpr PC_HOST_DEVICE int leaves_per_warp(int leaves) {
  int each = 1;
  while (each * kSplits < leaves) each *= 2;
  return each;
}
constexpr int stream_waiting_bytes(int leaves, int bands) {
  const int levels = shared_levels(leaves_per_warp(leaves), kStreamLevels);
  return 16 + levels * bands * 4 * kStreamThreads * int{sizeof(float)};  // 16: an address even where there are none
}

/// Few input rows: a warp sums a subtree, and all threads finish the tree. grid: one block a tile of weight rows;
/// shared memory: stream_waiting_bytes.
template <class T, int kBands>
__global__ void __launch_bounds__(kStreamThreads, 2) matmul_leaves_stream(const MatmulArgs args) {
  constexpr WeightFormat kFormat = WeightFormat::native;
  constexpr int kBatch = stream_batch(kFormat, kBands, 1);
  using Tile = WeightTile<T, kFormat>;
  PC_SHARED(float2[kSplits][kBands][2][32], partial);
  PC_DYNAMIC_SHARED(float, shared);

  const int lane = threadIdx.x % 32, warp = warp_index(), tile = blockIdx.x;
  const int each = leaves_per_warp(args.leaves.count), subtrees = (args.leaves.count + each - 1) / each;
  const int bands = kBands == 1 ? 1 : (args.m + 7) / 8;
  const bool aligned = args.leaves.aligned && inputs_aligned<T>(args);

  float sums[kBands][4] = {};
  if (warp < subtrees) {
    WaitingSums<kBands * 4, kStreamLevels> waiting;
    waiting.high = shared + threadIdx.x;
    waiting.threads = kStreamThreads;
    const int count = min(each, args.leaves.count - warp * each);
    LeafCursor cursor(args.leaves, warp * each);
    for (int leaf = 0; leaf < count;) {
      uint4 x[kBatch][kBands];
      Tile w[kBatch];
      bool there[kBatch], ends[kBatch];
      int ahead = leaf;
#pragma unroll
      for (int b = 0; b < kBatch; ++b) {
        there[b] = ahead < count;
        if (!there[b]) continue;
        const std::int64_t at = (std::int64_t{tile} * args.leaves.groups + cursor.group()) * tile_bytes(kFormat);
        w[b].load(args.weights + at, lane, [](const auto* from) { return __ldcs(from); });
        const GroupColumns columns = cursor.columns();
#pragma unroll
        for (int band = 0; band < kBands; ++band)
          x[b][band] = load_inputs<T>(args, band * 8 + lane / 4, columns.column + lane % 4 * 8, columns.end, aligned);
        ends[b] = cursor.ends_leaf();
        if (ends[b]) ++ahead;
        cursor.advance();
      }
#pragma unroll
      for (int b = 0; b < kBatch; ++b) {
        if (!there[b]) continue;
        multiply_group<T>(sums, w[b].fragments({}), x[b], bands);
        if (!ends[b]) continue;
        const bool last = leaf + 1 == count;
        float(&flat)[kBands * 4] = reinterpret_cast<float(&)[kBands * 4]>(sums);
        waiting.take(flat, leaf, last);
        ++leaf;
        if (last) continue;
#pragma unroll
        for (int i = 0; i < kBands * 4; ++i) flat[i] = 0.0f;
      }
    }
  }

#pragma unroll
  for (int band = 0; band < kBands; ++band) {
    partial[warp][band][0][lane] = make_float2(sums[band][0], sums[band][2]);
    partial[warp][band][1][lane] = make_float2(sums[band][1], sums[band][3]);
  }
  __syncthreads();
  for (int i = threadIdx.x; i < kBands * 64; i += kStreamThreads) {
    const int band = i / 64, odd = i / 32 % 2, from = i % 32;
    float2 node[kSplits];
#pragma unroll
    for (int split = 0; split < kSplits; ++split) node[split] = partial[split][band][odd][from];
#pragma unroll
    for (int width = 1; width < kSplits; width *= 2)
#pragma unroll
      for (int left = 0; left < kSplits; left += 2 * width) {
        if (left + width >= subtrees) continue;
        node[left].x += node[left + width].x;
        node[left].y += node[left + width].y;
      }
    finish_pair<T, kFormat>(args, tile, from / 4, band * 8 + from % 4 * 2 + odd, node[0].x, node[0].y);
  }
}

/// Half of matmul_tiled's: the other half of the registers holds sums that wait.
inline constexpr int kLeavesBlockTiles = 4;
inline constexpr int kLeavesWarpTiles = kLeavesBlockTiles / 2;
inline constexpr int kTiledSums = kLeavesWarpTiles * kWarpBands * 4;  // of a thread
inline constexpr int kTiledLevels = 3;                                // in registers
inline constexpr int kLeavesStageBytes = kLeavesBlockTiles * tile_bytes(WeightFormat::native) + kInputStageBytes;

constexpr int tiled_leaves_bytes(int leaves) {
  return kStages * kLeavesStageBytes +
         shared_levels(leaves, kTiledLevels) * kTiledSums * kTiledThreads * int{sizeof(float)};
}
static_assert(tiled_leaves_bytes(kMostLeavesOfKernel) <= int{kMaxSharedBytes});

/// Many input rows. grid: (blocks of input rows, blocks of weight tiles); shared memory: tiled_leaves_bytes.
template <class T>
__global__ void __launch_bounds__(kTiledThreads, 2) matmul_leaves_tiled(const MatmulArgs args, const int tiles) {
  constexpr WeightFormat kFormat = WeightFormat::native;
  using Tile = WeightTile<T, kFormat>;
  PC_DYNAMIC_SHARED(std::byte, stages);

  const int lane = threadIdx.x % 32, warp = warp_index();
  const int first_tile = warp / 2 * kLeavesWarpTiles, first_band = warp % 2 * kWarpBands;  // within the block
  const int groups = args.leaves.groups;
  const bool aligned = args.leaves.aligned && inputs_aligned<T>(args);
  WaitingSums<kTiledSums, kTiledLevels> waiting;
  waiting.high = reinterpret_cast<float*>(stages + kStages * kLeavesStageBytes) + threadIdx.x;
  waiting.threads = kTiledThreads;

  float sums[kLeavesWarpTiles][kWarpBands][4] = {};
  float(&flat)[kTiledSums] = reinterpret_cast<float(&)[kTiledSums]>(sums);
  LeafCursor copied(args.leaves, 0), summed(args.leaves, 0);
#pragma unroll
  for (int s = 0; s < kStages - 1; ++s) {
    if (s < groups) {
      copy_stage<T, kFormat, kLeavesBlockTiles>(stages + s * kLeavesStageBytes, args, tiles, groups, s,
                                                copied.columns(), aligned);
      copied.advance();
    }
    cp_async_commit();
  }
  int leaf = 0;
  for (int group = 0; group < groups; ++group) {
    cp_async_wait<kStages - 2>();
    __syncthreads();  // the copies of all threads are there, and the stage before this one is free
    const int ahead = group + kStages - 1;
    if (ahead < groups) {
      copy_stage<T, kFormat, kLeavesBlockTiles>(stages + ahead % kStages * kLeavesStageBytes, args, tiles, groups,
                                                ahead, copied.columns(), aligned);
      copied.advance();
    }
    cp_async_commit();

    const std::byte* stage = stages + group % kStages * kLeavesStageBytes;
    const auto* inputs = reinterpret_cast<const uint4*>(stage + kLeavesBlockTiles * tile_bytes(kFormat));
    uint4 x[kWarpBands];
#pragma unroll
    for (int band = 0; band < kWarpBands; ++band) x[band] = inputs[(first_band + band) * 32 + lane];
#pragma unroll
    for (int i = 0; i < kLeavesWarpTiles; ++i) {
      Tile w;
      w.load(stage + (first_tile + i) * tile_bytes(kFormat), lane, [](const auto* at) { return *at; });
      multiply_group<T>(sums[i], w.fragments({}), x);
    }
    if (summed.ends_leaf()) {
      const bool last = leaf + 1 == args.leaves.count;
      waiting.take(flat, leaf, last);
      ++leaf;
      if (!last) {
#pragma unroll
        for (int i = 0; i < kTiledSums; ++i) flat[i] = 0.0f;
      }
    }
    summed.advance();
  }
  cp_async_wait<0>();

#pragma unroll
  for (int i = 0; i < kLeavesWarpTiles; ++i)
#pragma unroll
    for (int band = 0; band < kWarpBands; ++band) {
      const int tile = blockIdx.y * kLeavesBlockTiles + first_tile + i;
      const std::int64_t row = std::int64_t{blockIdx.x} * kBlockRows + (first_band + band) * 8 + lane % 4 * 2;
      finish_pair<T, kFormat>(args, tile, lane / 4, row, sums[i][band][0], sums[i][band][2]);
      finish_pair<T, kFormat>(args, tile, lane / 4, row + 1, sums[i][band][1], sums[i][band][3]);
    }
}

}  // namespace pagedcore::cuda
