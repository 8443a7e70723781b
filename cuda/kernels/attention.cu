#include "kernels/attention_launch.cuh"

namespace pagedcore::cuda {
namespace {

cudaError_t launch_items(const AttentionArgs& args, cudaStream_t stream) {
  switch (args.kv.tile.type) {
    case KvType::f16:
      return launch_attention_f16(args, stream);
    case KvType::bf16:
      return launch_attention_bf16(args, stream);
    case KvType::fp8_e4m3:
      return launch_attention_fp8(args, stream);
    case KvType::int8:
      return launch_attention_int8(args, stream);
  }
  return cudaErrorInvalidValue;
}

template <typename T>
cudaError_t launch_merge(const AttentionArgs& args, cudaStream_t stream) {
  switch (args.kv.tile.head_dim) {
    case 64:
      return merge_head_dim<T, 64>(args, stream);
    case 80:
      return merge_head_dim<T, 80>(args, stream);
    case 96:
      return merge_head_dim<T, 96>(args, stream);
    case 112:
      return merge_head_dim<T, 112>(args, stream);
    case 128:
      return merge_head_dim<T, 128>(args, stream);
    case 256:
      return merge_head_dim<T, 256>(args, stream);
  }
  return cudaErrorInvalidValue;
}

}  // namespace

cudaError_t launch_attention(const AttentionArgs& args, cudaStream_t stream) {
  const cudaError_t error = launch_items(args, stream);
  if (error != cudaSuccess || args.num_split_rows == 0) return error;
  return args.compute == ComputeType::f16 ? launch_merge<__half>(args, stream)
                                          : launch_merge<__nv_bfloat16>(args, stream);
}

}  // namespace pagedcore::cuda
