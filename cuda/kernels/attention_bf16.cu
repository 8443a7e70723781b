#include "kernels/attention_launch.cuh"

namespace pagedcore::cuda {

cudaError_t launch_attention_bf16(const AttentionArgs& args, cudaStream_t stream) {
  return launch_storage<__nv_bfloat16, KvType::bf16>(args, stream);
}

}  // namespace pagedcore::cuda
