#include "kernels/attention_launch.cuh"

namespace pagedcore::cuda {

cudaError_t launch_attention_int8(const AttentionArgs& args, cudaStream_t stream) {
  return args.compute == ComputeType::f16 ? launch_storage<__half, KvType::int8>(args, stream)
                                          : launch_storage<__nv_bfloat16, KvType::int8>(args, stream);
}

}  // namespace pagedcore::cuda
