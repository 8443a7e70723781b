// Many pieces of memory moved by one launch: the copy-on-write copies of a step, blocks gathered for one transfer to
// the host and scattered after one back, rows of a batch and of beams picked and put in a new order.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

namespace pagedcore::cuda {

/// Piece i goes from src + src_stride * src_index[i] to dst + dst_stride * dst_index[i]; without an index, piece i lies
/// in place i. Sizes and strides in bytes, of any size and alignment: 16 bytes are moved at a time where everything is
/// a multiple of 16. No destination may be a source or another destination. The indices are device memory and are not
/// checked here.
struct CopyArgs {
  std::byte* dst = nullptr;
  const std::byte* src = nullptr;
  std::int64_t dst_stride = 0;
  std::int64_t src_stride = 0;
  const std::uint32_t* dst_index = nullptr;  // [count]: a scatter
  const std::uint32_t* src_index = nullptr;  // [count]: a gather
  std::int64_t bytes = 0;                    // of a piece
  std::int32_t count = 0;
};
cudaError_t launch_copy(const CopyArgs& args, cudaStream_t stream);

}  // namespace pagedcore::cuda
