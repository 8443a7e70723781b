// The swap space: where the blocks of preempted requests wait (PagedAttention, section 4.5). Two tiers behind one row
// of swap slots, host memory first, then a file. A block in the file carries a checksum, which is kept in memory.
//
// What goes wrong with a block is told per block and never thrown: its request is recomputed. Engine thread only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/swap_file.hpp"
#include "pagedcore/backend.hpp"
#include "pagedcore/engine.hpp"

namespace pagedcore {

struct SwapConfig {
  std::size_t block_bytes = 0;
  std::uint32_t host_slots = 0;  // the lowest
  std::uint32_t file_slots = 0;
};

class SwapStore {
 public:
  /// Host memory is reserved, and taken as swap slots are used. `file` is needed for file_slots. Throws OutOfMemory.
  SwapStore(const SwapConfig& config, std::unique_ptr<SwapFile> file);
  ~SwapStore();
  SwapStore(const SwapStore&) = delete;
  SwapStore& operator=(const SwapStore&) = delete;

  /// Moves blocks to their swap slots, or back. failed[i], as long as `moves`, becomes 1 for a block that was lost,
  /// else 0.
  void store(Backend& backend, const KvStorage& kv, std::span<const BlockSwap> moves, std::span<std::uint8_t> failed);
  void load(Backend& backend, KvStorage& kv, std::span<const BlockSwap> moves, std::span<std::uint8_t> failed);

  const SwapCounters& counters() const noexcept { return counters_; }
  /// Why a block was lost most recently; empty: none was.
  const std::string& last_error() const noexcept { return last_error_; }

 private:
  std::byte* host(SwapSlot slot) const noexcept { return host_ + raw(slot) * config_.block_bytes; }
  bool in_file(SwapSlot slot) const noexcept { return raw(slot) >= config_.host_slots; }
  std::uint64_t offset(SwapSlot slot) const noexcept {
    return std::uint64_t{raw(slot) - config_.host_slots} * config_.block_bytes;
  }
  void take_note(const std::string& error, std::uint8_t& failed, std::uint64_t& bytes_moved);

  SwapConfig config_;
  std::unique_ptr<SwapFile> file_;
  std::byte* host_ = nullptr;
  std::vector<std::byte> bounce_;         // a few blocks on their way to the file
  std::vector<std::uint64_t> checksums_;  // [file_slots]
  SwapCounters counters_;
  std::string last_error_;
  // Kept for their memory.
  std::vector<BlockId> blocks_;
  std::vector<std::byte*> places_;
  std::vector<const std::byte*> sources_;
  std::vector<std::string> errors_;
};

}  // namespace pagedcore
