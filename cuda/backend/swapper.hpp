// Whole KV blocks to and from host memory, beside the computation: a kernel gathers blocks into one piece of device memory
// (or scatters them out of it), and a stream of its own moves that piece to or from pinned memory.
#pragma once

#include <span>
#include <vector>

#include "backend/batch.hpp"
#include "backend/storage.hpp"

namespace pagedcore::cuda {

class Swapper {
 public:
  /// `staging` is that of the compute stream's small arrays; `pinned_bytes` the size of a ring of its own, made on first use.
  Swapper(Device& device, Staging& staging, std::size_t pinned_bytes);

  void out(const CudaKvStorage& kv, std::span<const BlockId> blocks, std::span<std::byte* const> dst);
  void in(CudaKvStorage& kv, std::span<const BlockId> blocks, std::span<const std::byte* const> src);
  /// Waits for all transfers and fills the host memory of those that went out.
  void finish();

 private:
  struct Move;  // one piece that is on its way out
  std::size_t blocks_of_a_piece(std::size_t block_bytes);
  DeviceMemory indices_of(std::span<const BlockId> blocks);
  void deliver_oldest();

  Device& device_;
  Staging& staging_;
  std::size_t pinned_bytes_;
  std::byte* pinned_ = nullptr;
  std::unique_ptr<Stream> stream_;
  std::deque<Move> moves_;
};

}  // namespace pagedcore::cuda
