// The buddy allocator of the contiguous baselines (PagedAttention, section 6.1): chunks of a power of two of blocks.
//
// The pool is cut from block 0 on into the largest chunks that fit. An allocation takes the smallest free chunk that is
// large enough, of those the one freed last, and splits it by halves; a freed chunk is merged with its buddy, at
// `first XOR size`, as long as that is free and of the same size. Knuth, The Art of Computer Programming, 2.5.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

namespace pagedcore::kv {

/// Blocks [first, first + 2^order).
struct Chunk {
  std::uint32_t first = 0;
  std::uint32_t order = 0;

  std::uint32_t size() const noexcept { return 1u << order; }
};

class BuddyAllocator {
 public:
  /// How many chunks of each order are free. Addresses do not matter for what can be taken, only for what merges.
  using Counts = std::array<std::uint32_t, 32>;

  /// Chunks have at most 2^max_order blocks.
  BuddyAllocator(std::uint32_t num_blocks, std::uint32_t max_order);

  /// The order of the smallest chunk of at least so many blocks.
  static std::uint32_t order_of(std::uint32_t num_blocks) noexcept;
  /// What allocate() would do to the counts; false, and nothing has changed, when there is no chunk.
  static bool take(Counts& counts, std::uint32_t order) noexcept;

  const Counts& counts() const noexcept { return counts_; }
  /// Throws Corrupt when there is none: the caller has tried the counts.
  Chunk allocate(std::uint32_t order);
  void free(Chunk chunk) noexcept;
  /// Blocks in free chunks.
  std::uint32_t available() const noexcept;
  /// Verifies lists and counts; throws Corrupt.
  void check() const;

 private:
  void push(Chunk chunk) noexcept;
  void remove(Chunk chunk) noexcept;

  static constexpr std::uint32_t kNone = 0xffffffff;
  std::uint32_t size_;
  std::uint32_t max_order_;
  Counts counts_{};
  std::array<std::uint32_t, 32> heads_;     // of the lists of free chunks, by order
  std::vector<std::uint32_t> prev_, next_;  // [size] of chunks by their first block
  std::vector<std::uint8_t> free_order_;    // [size] 1 + order of the free chunk that begins there; 0: none
};

}  // namespace pagedcore::kv
