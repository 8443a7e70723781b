// The block table of one sequence (PagedAttention, section 4.2): of group g of the layers, logical block i lives in
// physical block blocks[i * groups + g].
#pragma once

#include <cstdint>
#include <vector>

#include "kv/prefix_index.hpp"
#include "pagedcore/types.hpp"

namespace pagedcore::kv {

struct alignas(64) BlockTable {
  // What every step reads comes first: one cache line.
  SequenceId sequence{};
  std::vector<BlockId> blocks;  // [ceil(length / block_size)][groups]: waste is under one block of each group. kNoBlock
                                // where a window has passed, and where `slots` says that the block is swapped out
  std::uint32_t length = 0;     // token slots reserved; slots behind it in the last block are unused
  // Token slots of its blocks when nobody else holds the last one, nor can find it, so that those behind `length` are
  // filled without further ado; else 0.
  std::uint32_t own_slots = 0;
  // The first `published` blocks hold prefixes that the index knew when `tail`, the last of them there, was alive.
  // tail.block need not be our own: of two sequences that computed the same block only the first one's is indexed.
  std::uint32_t published = 0;
  PrefixLink tail;
  bool publishes = true;  // false once the cache was cleared under the sequence
  bool borrows = false;   // the last block belongs to the prefix cache: the first append() copies it
  bool swapped = false;
  bool live = false;
  bool marked = false;  // while a group is looked at
  std::uint64_t salt = 0;
  std::vector<SwapSlot> slots;  // as blocks, while the sequence is swapped out; else empty
};

}  // namespace pagedcore::kv
