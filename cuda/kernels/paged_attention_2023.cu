#include "kernels/paged_attention_2023.cuh"

namespace pagedcore::cuda {
namespace {

template <typename T, int kBlockSize>
cudaError_t launch(const PagedAttention2023Args& args, cudaStream_t stream) {
  const int floats = max(args.max_context_len, 4 * args.head_dim);
  constexpr auto kernel = paged_attention_2023_kernel<T, kBlockSize>;
  PC_LAUNCH(kernel, dim3(args.num_heads, args.num_sequences), dim3(128), floats * sizeof(float), stream, args);
  return cudaGetLastError();
}

template <typename T>
cudaError_t launch(const PagedAttention2023Args& args, cudaStream_t stream) {
  switch (args.block_size) {
    case 8:
      return launch<T, 8>(args, stream);
    case 16:
      return launch<T, 16>(args, stream);
    case 32:
      return launch<T, 32>(args, stream);
  }
  return cudaErrorInvalidValue;
}

}  // namespace

cudaError_t launch_paged_attention_2023(const PagedAttention2023Args& args, cudaStream_t stream) {
  if (args.num_sequences == 0) return cudaSuccess;
  return args.compute == ComputeType::f16 ? launch<__half>(args, stream) : launch<__nv_bfloat16>(args, stream);
}

}  // namespace pagedcore::cuda
