// The query rows of a warp: which rows of the batch they are, and what of the context they see.
#pragma once

#include "kernels/attention.hpp"
#include "kernels/device.cuh"

namespace pagedcore::cuda {

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
  int begin, end;          // tokens that some row sees
  int all_begin, all_end;  // tokens that every row sees

  __device__ WarpRows(const AttentionArgs& args, const AttentionItem& item, int kv_head, int first_row) {
    constexpr int kFar = 0x7fffffff;
    begin = kFar, end = 0, all_begin = 0, all_end = kFar;
    for (int i = 0; i < 2; ++i) {
      const int r = first_row + static_cast<int>(lane_index()) / 4 + i * 8;
      position[i] = -1, lowest[i] = 0;
      if (r >= item.count) continue;
      position[i] = args.positions[QueryRow(args, item, kv_head, r).row];
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
  /// Whether some row sees one of the tokens [first, first + count).
  __device__ bool reaches(int first, int count) const { return first < end && first + count > begin; }
};

}  // namespace pagedcore::cuda
