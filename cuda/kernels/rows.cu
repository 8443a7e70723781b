#include "kernels/rows.cuh"

namespace pagedcore::cuda {
namespace {

template <class T, WeightFormat kFormat>
cudaError_t launch(const EmbedArgs& args, cudaStream_t stream) {
  PC_LAUNCH((embed_rows<T, kFormat>), dim3(args.rows), dim3(kRowThreads), 0, stream, args);
  return cudaGetLastError();
}

template <class T>
cudaError_t launch(const EmbedArgs& args, WeightFormat format, cudaStream_t stream) {
  switch (format) {
    case WeightFormat::native:
      return launch<T, WeightFormat::native>(args, stream);
    case WeightFormat::int8_row:
      return launch<T, WeightFormat::int8_row>(args, stream);
    case WeightFormat::int8_group:
      return launch<T, WeightFormat::int8_group>(args, stream);
    case WeightFormat::int4_group:
      return launch<T, WeightFormat::int4_group>(args, stream);
  }
  return cudaErrorInvalidValue;
}

}  // namespace

cudaError_t launch_embed(const EmbedArgs& args, DType type, WeightFormat format, cudaStream_t stream) {
  if (args.rows == 0) return cudaSuccess;
  if (type == DType::f16) return launch<__half>(args, format, stream);
  if (type == DType::bf16) return launch<__nv_bfloat16>(args, format, stream);
  return cudaErrorInvalidValue;
}

cudaError_t launch_scale_softcap(const SoftcapArgs& args, cudaStream_t stream) {
  if (args.rows == 0 || args.cols == 0) return cudaSuccess;
  constexpr int kPerThread = 8, kMostParts = 1024;
  const int parts = (args.cols + kRowThreads * kPerThread - 1) / (kRowThreads * kPerThread);
  const dim3 grid(args.rows, parts < kMostParts ? parts : kMostParts);
  PC_LAUNCH(scale_softcap, grid, dim3(kRowThreads), 0, stream, args);
  return cudaGetLastError();
}

}  // namespace pagedcore::cuda
