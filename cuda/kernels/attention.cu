#include "kernels/attention_launch.cuh"

namespace pagedcore::cuda {

void launch_attention(const AttentionArgs& args, cudaStream_t stream) {
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
}

}  // namespace pagedcore::cuda
