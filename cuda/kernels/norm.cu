#include "kernels/norm.cuh"

namespace pagedcore::cuda {
namespace {

template <class T>
cudaError_t launch(const NormArgs& args, cudaStream_t stream) {
  PC_LAUNCH((norm_rows<T>), dim3(args.rows), dim3(kNormThreads), 0, stream, args);
  return cudaGetLastError();
}

}  // namespace

cudaError_t launch_norm(const NormArgs& args, DType out_type, cudaStream_t stream) {
  if (args.rows == 0) return cudaSuccess;
  switch (out_type) {
    case DType::f32:
      return launch<float>(args, stream);
    case DType::f16:
      return launch<__half>(args, stream);
    case DType::bf16:
      return launch<__nv_bfloat16>(args, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

cudaError_t launch_head_norm(const HeadNormArgs& args, cudaStream_t stream) {
  if (args.rows == 0) return cudaSuccess;
  const dim3 grid(args.rows, (args.heads + kHeadsPerBlock - 1) / kHeadsPerBlock);
  PC_LAUNCH(norm_heads, grid, dim3(kHeadsPerBlock * 32), 0, stream, args);
  return cudaGetLastError();
}

}  // namespace pagedcore::cuda
