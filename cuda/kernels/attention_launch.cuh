// From arguments to the compiled kernel. Each attention_<type>.cu instantiates it for one type of storage.
#pragma once

#include "kernels/attention.cuh"
#include "kernels/attention_merge.cuh"

namespace pagedcore::cuda {

void launch_attention_f16(const AttentionArgs& args, cudaStream_t stream);
void launch_attention_bf16(const AttentionArgs& args, cudaStream_t stream);
void launch_attention_fp8(const AttentionArgs& args, cudaStream_t stream);
void launch_attention_int8(const AttentionArgs& args, cudaStream_t stream);

template <class Shape>
void launch_shape(const AttentionArgs& args, const AttentionItem* items, int count, cudaStream_t stream) {
  static_assert(Shape::kSharedBytes <= kMaxSharedBytes);
  if (count == 0) return;
  const auto kernel = attention_kernel<Shape>;
  if constexpr (Shape::kSharedBytes > 48 * 1024)
    cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, Shape::kSharedBytes);
  PC_LAUNCH(kernel, dim3(count, args.kv.num_kv_heads), dim3(Shape::kThreads), Shape::kSharedBytes, stream, args, items);
}

template <typename T, KvType kKv, int kHeadDim>
void launch_head_dim(const AttentionArgs& args, cudaStream_t stream) {
  constexpr int kColumns = kHeadDim > 128 ? 4 : 2;
  using Wide = AttentionShape<T, kKv, kHeadDim, attention_wide_tile(kHeadDim) / 16, kColumns>;
  using Narrow = AttentionShape<T, kKv, kHeadDim, kNarrowTile / 16, 4>;
  launch_shape<Wide>(args, args.wide, args.num_wide, stream);
  launch_shape<Narrow>(args, args.narrow, args.num_narrow, stream);
  const int merges = args.num_split_rows * args.num_heads;
  if (merges == 0) return;
  const auto merge = merge_states_kernel<T, kHeadDim>;
  PC_LAUNCH(merge, dim3((merges + kMergeWarps - 1) / kMergeWarps), dim3(32 * kMergeWarps), 0, stream, args);
}

template <typename T, KvType kKv>
void launch_storage(const AttentionArgs& args, cudaStream_t stream) {
  switch (args.kv.tile.head_dim) {
    case 64:
      return launch_head_dim<T, kKv, 64>(args, stream);
    case 80:
      return launch_head_dim<T, kKv, 80>(args, stream);
    case 96:
      return launch_head_dim<T, kKv, 96>(args, stream);
    case 112:
      return launch_head_dim<T, kKv, 112>(args, stream);
    case 128:
      return launch_head_dim<T, kKv, 128>(args, stream);
    case 256:
      return launch_head_dim<T, kKv, 256>(args, stream);
  }
}

}  // namespace pagedcore::cuda
