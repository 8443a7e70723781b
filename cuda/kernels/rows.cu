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

}  // namespace

cudaError_t launch_embed(const EmbedArgs& args, DType type, WeightFormat format, cudaStream_t stream) {
  if (args.rows == 0) return cudaSuccess;
  if (format == WeightFormat::plain)
    return dispatch_type(type, [&]<class T>() { return launch_plain<T>(args, stream); });
  return dispatch_weights(type, format,
                          [&]<class T, WeightFormat kFormat>() { return launch<T, kFormat>(args, stream); });
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
