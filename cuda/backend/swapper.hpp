// Whole KV blocks to and from host memory, beside the computation: a kernel gathers blocks into one piece of device
// memory (or scatters them out of it), and a stream of its own moves that piece to or from pinned memory.
#pragma once

#include <array>
#include <memory>
#include <span>
#include <vector>

#include "backend/batch.hpp"
#include "backend/storage.hpp"

namespace pagedcore::cuda {

class Swapper {
 public:
  /// Moves up to `piece_bytes`, or a block where that is more, at a time; two pieces may be on their way.
  Swapper(Device& device, Staging& staging, std::size_t piece_bytes);
  ~Swapper();
  Swapper(const Swapper&) = delete;
  Swapper& operator=(const Swapper&) = delete;

  /// As Backend::swap_out and swap_in; arguments have been checked.
  void out(const CudaKvStorage& kv, std::span<const BlockId> blocks, std::span<std::byte* const> dst);
  void in(const CudaKvStorage& kv, std::span<const BlockId> blocks, std::span<const std::byte* const> src);
  /// Waits for all transfers and fills the host memory of those that went out.
  void finish();

 private:
  struct PieceBuffer {
    DeviceMemory device;
    std::byte* pinned = nullptr;
    std::unique_ptr<Event> moved, free;
    bool busy = false;                // until `free` has happened
    std::vector<std::byte*> targets;  // of a piece on its way out
    std::size_t block_bytes = 0;
  };

  /// Calls move(buffer, first, count) for pieces of `count` blocks.
  template <typename Move>
  void for_each_piece(std::size_t blocks, std::size_t block_bytes, const Move& move);
  void make_buffers(std::size_t block_bytes);
  void release_buffers() noexcept;
  void finish(PieceBuffer& buffer);

  Device& device_;
  Staging& staging_;
  std::size_t piece_bytes_, buffer_bytes_ = 0;
  std::unique_ptr<Stream> stream_;
  std::array<PieceBuffer, 2> buffers_;
  std::size_t next_ = 0;
};

}  // namespace pagedcore::cuda
