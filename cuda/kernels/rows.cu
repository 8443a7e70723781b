#include "kernels/rows.cuh"
#include "kernels/weight_dispatch.hpp"

namespace pagedcore::cuda {
namespace {

template <class T, WeightFormat kFormat>
cudaError_t launch(const EmbedArgs& args, cudaStream_t stream) {
  PC_LAUNCH((embed_rows<T, kFormat>), dim3(args.rows), dim3(kRowThreads), 0, stream, args);
  return cudaGetLastError();
}

template <class T>
cudaError_t launch_plain(const EmbedArgs& args, cudaStream_t stream) {
  PC_LAUNCH((embed_plain_rows<T>), dim3(args.rows), dim3(kRowThreads), 0, stream, args);
  return cudaGetLastError();
}

/// Blocks of threads: the rows, and parts of each.
dim3 parts_of(std::int32_t rows, std::int32_t cols) {
  constexpr int kPerThread = 8, kMostParts = 1024;
  const int parts = (cols + kRowThreads * kPerThread - 1) / (kRowThreads * kPerThread);
  return dim3(rows, parts < kMostParts ? parts : kMostParts);
}

template <class T>
cudaError_t launch_convert_to(const ConvertArgs& args, cudaStream_t stream) {
  PC_LAUNCH((convert_rows<T>), parts_of(args.rows, args.cols), dim3(kRowThreads), 0, stream, args);
  return cudaGetLastError();
}

}  // namespace

cudaError_t launch_embed(const EmbedArgs& args, DType type, WeightFormat format, cudaStream_t stream) {
  if (args.rows == 0) return cudaSuccess;
  if (format == WeightFormat::plain)
    return dispatch_type(type, [&]<class T>() { return launch_plain<T>(args, stream); });
  return dispatch_weights(type, format,
                          [&]<class T, WeightFormat kFormat>() { return launch<T, kFormat>(args, stream); });
}

cudaError_t launch_add(const AddArgs& args, cudaStream_t stream) {
  if (args.rows == 0 || args.cols == 0) return cudaSuccess;
  PC_LAUNCH(add_rows, parts_of(args.rows, args.cols), dim3(kRowThreads), 0, stream, args);
  return cudaGetLastError();
}

cudaError_t launch_convert(const ConvertArgs& args, DType out_type, cudaStream_t stream) {
  if (args.rows == 0 || args.cols == 0) return cudaSuccess;
  switch (out_type) {
    case DType::f32:
      return launch_convert_to<float>(args, stream);
    case DType::f16:
      return launch_convert_to<__half>(args, stream);
    case DType::bf16:
      return launch_convert_to<__nv_bfloat16>(args, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

cudaError_t launch_scale_softcap(const SoftcapArgs& args, cudaStream_t stream) {
  if (args.rows == 0 || args.cols == 0) return cudaSuccess;
  PC_LAUNCH(scale_softcap, parts_of(args.rows, args.cols), dim3(kRowThreads), 0, stream, args);
  return cudaGetLastError();
}

}  // namespace pagedcore::cuda
