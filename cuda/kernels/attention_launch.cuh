// From arguments to the compiled kernel. Each attention_<type>.cu instantiates the attention for one type of storage,
// and attention.cu the merge of states, which is the same for all.
#pragma once

#include "kernels/attention.cuh"
#include "kernels/attention_merge.cuh"

namespace pagedcore::cuda {

cudaError_t launch_attention_f16(const AttentionArgs& args, cudaStream_t stream);
cudaError_t launch_attention_bf16(const AttentionArgs& args, cudaStream_t stream);
cudaError_t launch_attention_fp8(const AttentionArgs& args, cudaStream_t stream);
cudaError_t launch_attention_int8(const AttentionArgs& args, cudaStream_t stream);

template <class Shape>
cudaError_t launch_shape(const AttentionArgs& args, const AttentionItem* items, int count, cudaStream_t stream) {
  static_assert(Shape::kSharedBytes <= kMaxSharedBytes);
  if (count == 0) return cudaSuccess;
  constexpr auto kernel = attention_kernel<Shape>;
  if constexpr (Shape::kSharedBytes > 48 * 1024) {
    const cudaError_t error =
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, Shape::kSharedBytes);
    if (error != cudaSuccess) return error;
  }
  PC_LAUNCH(kernel, dim3(count, args.kv.num_kv_heads), dim3(Shape::kThreads), Shape::kSharedBytes, stream, args, items);
  return cudaGetLastError();
}

template <typename T, KvType kKv, int kHeadDim>
cudaError_t launch_head_dim(const AttentionArgs& args, cudaStream_t stream) {
  constexpr int kColumns = kHeadDim > 128 ? 4 : 2;
  using Wide = AttentionShape<T, kKv, kHeadDim, attention_wide_tile(kHeadDim) / 16, kColumns>;
  using Narrow = AttentionShape<T, kKv, kHeadDim, kNarrowTile / 16, 4>;
  const cudaError_t error = launch_shape<Wide>(args, args.wide, args.num_wide, stream);
  return error != cudaSuccess ? error : launch_shape<Narrow>(args, args.narrow, args.num_narrow, stream);
}

template <typename T, KvType kKv>
cudaError_t launch_storage(const AttentionArgs& args, cudaStream_t stream) {
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
  return cudaErrorInvalidValue;
}

template <typename T, int kHeadDim>
cudaError_t merge_head_dim(const AttentionArgs& args, cudaStream_t stream) {
  const int merges = args.num_split_rows * args.num_heads;
  constexpr auto kernel = merge_states_kernel<T, kHeadDim>;
  PC_LAUNCH(kernel, dim3((merges + kMergeWarps - 1) / kMergeWarps), dim3(32 * kMergeWarps), 0, stream, args);
  return cudaGetLastError();
}

}  // namespace pagedcore::cuda
