#include "kernels/copy.cuh"

namespace pagedcore::cuda {
namespace {

template <class Vector>
cudaError_t launch(const CopyArgs& args, cudaStream_t stream) {
  constexpr std::int64_t kPart = std::int64_t{sizeof(Vector)} * kCopyVectors * kCopyThreads;
  const std::int64_t parts = (args.bytes + kPart - 1) / kPart, blocks = parts * args.count;
  if (blocks > INT32_MAX) return cudaErrorInvalidConfiguration;
  PC_LAUNCH((copy_pieces<Vector>), dim3(static_cast<unsigned>(blocks)), dim3(kCopyThreads), 0, stream, args,
            static_cast<unsigned>(parts));
  return cudaGetLastError();
}

}  // namespace

cudaError_t launch_copy(const CopyArgs& args, cudaStream_t stream) {
  if (args.count == 0 || args.bytes == 0) return cudaSuccess;
  const auto all = reinterpret_cast<std::uintptr_t>(args.dst) | reinterpret_cast<std::uintptr_t>(args.src) |
                   static_cast<std::uintptr_t>(args.dst_stride | args.src_stride | args.bytes);
  if (all % 16 == 0) return launch<uint4>(args, stream);
  if (all % 4 == 0) return launch<std::uint32_t>(args, stream);
  return launch<unsigned char>(args, stream);
}

}  // namespace pagedcore::cuda
