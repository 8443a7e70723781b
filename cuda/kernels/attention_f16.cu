#include "kernels/attention_launch.cuh"

namespace pagedcore::cuda {

cudaError_t launch_attention_f16(const AttentionArgs& args, cudaStream_t stream) {
  return launch_storage<__half, KvType::f16>(args, stream);
}

}  // namespace pagedcore::cuda
