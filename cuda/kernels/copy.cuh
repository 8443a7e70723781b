#pragma once

#include "kernels/copy.hpp"
#include "kernels/device.cuh"

namespace pagedcore::cuda {

inline constexpr int kCopyThreads = 256;
inline constexpr int kCopyVectors = 4;  // loads of a thread that are in flight together

/// Moves kCopyVectors * kCopyThreads vectors of a piece. grid: pieces * parts, the parts of a piece side by side.
template <class Vector>
__global__ void __launch_bounds__(kCopyThreads) copy_pieces(const CopyArgs args, const unsigned parts) {
  const unsigned piece = blockIdx.x / parts, part = blockIdx.x % parts;
  const std::int64_t from = args.src_index != nullptr ? args.src_index[piece] : piece;
  const std::int64_t to = args.dst_index != nullptr ? args.dst_index[piece] : piece;
  const auto* src = reinterpret_cast<const Vector*>(args.src + from * args.src_stride);
  auto* dst = reinterpret_cast<Vector*>(args.dst + to * args.dst_stride);
  const std::int64_t size = args.bytes / static_cast<std::int64_t>(sizeof(Vector));
  const std::int64_t first = std::int64_t{part} * (kCopyVectors * kCopyThreads) + threadIdx.x;

  Vector values[kCopyVectors];
#pragma unroll
  for (int i = 0; i < kCopyVectors; ++i)
    if (first + i * kCopyThreads < size) values[i] = __ldcs(src + first + i * kCopyThreads);
#pragma unroll
  for (int i = 0; i < kCopyVectors; ++i)
    if (first + i * kCopyThreads < size) __stcs(dst + first + i * kCopyThreads, values[i]);
}

}  // namespace pagedcore::cuda
