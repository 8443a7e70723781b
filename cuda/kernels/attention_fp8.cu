#include "kernels/attention_launch.cuh"

namespace pagedcore::cuda {

cudaError_t launch_attention_fp8(const AttentionArgs& args, cudaStream_t stream) {
  return args.compute == ComputeType::f16 ? launch_storage<__half, KvType::fp8_e4m3>(args, stream)
                                          : launch_storage<__nv_bfloat16, KvType::fp8_e4m3>(args, stream);
}

}  // namespace pagedcore::cuda
