// The query rows of a warp: which rows of the batch they are, and what of the context they see.
#pragma once

#include "kernels/attention.hpp"
#include "kernels/device.cuh"

namespace pagedcore::cuda {

inline constexpr float kLog2e = 1.4426950408889634f;

/// A query row of an item: one head of one row of the batch.
struct QueryRow {
  int row, head;

  __device__ QueryRow(const AttentionArgs& args, const AttentionItem& item, int kv_head, int r) {
    const int heads_per_kv_head = args.num_heads / args.kv.num_kv_heads, index = item.first + r;
    row = args.rows[index / heads_per_kv_head];
    head = kv_head * heads_per_kv_head + index % heads_per_kv_head;
  }
};

/// What rows g and g + 8 of the warp's 16, g = lane / 4, see, and what all 16 have in common. Rows past the item's
/// count have position -1 and see nothing.
struct WarpRows {
  int position[2], lowest[2];
  float slope[2];          // of ALiBi, in base 2
  bool biased;             // with it
  int begin, end;          // tokens that some row sees
  int all_begin, all_end;  // tokens that every row sees

  __device__ WarpRows(const AttentionArgs& args, const AttentionItem& item, int kv_head, int first_row) {
    constexpr int kFar = 0x7fffffff;
    biased = args.alibi != nullptr;
    begin = kFar, end = 0, all_begin = 0, all_end = kFar;
    for (int i = 0; i < 2; ++i) {
      const int r = first_row + static_cast<int>(lane_index()) / 4 + i * 8;
      position[i] = -1, lowest[i] = 0, slope[i] = 0.0f;
      if (r >= item.count) continue;
      const QueryRow query(args, item, kv_head, r);
      position[i] = args.positions[query.row];
      if (biased) slope[i] = __fmul_rn(args.alibi[query.head], kLog2e);
      if (args.window > 0) lowest[i] = max(0, position[i] - args.window + 1);
      begin = min(begin, lowest[i]);
      end = max(end, position[i] + 1);
      all_begin = max(all_begin, lowest[i]);
      all_end = min(all_end, position[i] + 1);
    }
    begin = __reduce_min_sync(kAllLanes, begin);
    end = __reduce_max_sync(kAllLanes, end);
    all_begin = __reduce_max_sync(kAllLanes, all_begin);
    all_end = __reduce_min_sync(kAllLanes, all_end);
  }

  __device__ bool sees(int i, int token) const { return token >= lowest[i] && token <= position[i]; }
  /// What is added to row i's score of a token that it sees.
  __device__ float bias(int i, int token) const { return __fmul_rn(slope[i], static_cast<float>(token - position[i])); }
  /// Whether some row sees one of the tokens [first, first + count).
  __device__ bool reaches(int first, int count) const { return first < end && first + count > begin; }
};

}  // namespace pagedcore::cuda
