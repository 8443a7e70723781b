// Paged allocation (PagedAttention, section 4): blocks as they are needed, shared copy-on-write, found again through
// the prefix index, moved to and from the swap space.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "kv/cache.hpp"
#include "kv/prefix_index.hpp"
#include "kv/swap_pool.hpp"

namespace pagedcore::kv {

class PagedCache final : public Cache {
 public:
  explicit PagedCache(const KvCacheConfig& config);

  KvTraits traits() const noexcept override { return {.shares = true, .grows = true}; }
  KvCacheCounts counts() const noexcept override;
  std::uint32_t reservation(std::uint32_t prompt, std::uint32_t max_output) const noexcept override;
  std::size_t most_copies(std::size_t sequences, std::size_t) const noexcept override { return sequences * groups; }

  PrefixMatch match_prefix(std::span<const TokenId> tokens, std::uint64_t salt, std::uint32_t max_tokens,
                           bool whole_blocks) const override;
  std::vector<BlockId> cached_blocks(std::span<const TokenId> tokens, std::uint64_t salt) const override;
  std::vector<BlockId> import_prefix(std::span<const TokenId> tokens, std::uint64_t salt,
                                     std::span<const std::uint8_t> offered) override;
  void prepare(SequenceId seq, std::uint32_t length, std::uint64_t salt, const PrefixMatch& match,
               const KvGroup& group) override;
  void start(BlockTable& table, std::uint64_t salt, const PrefixMatch& match, const KvGroup& group) override;
  void prepare_fork(SequenceId parent, SequenceId child, std::uint32_t num_tokens) override;
  void start_fork(BlockTable& parent, BlockTable& child, std::uint32_t num_tokens, const std::uint64_t* salt) override;
  void append(BlockTable& table, std::uint32_t length, std::vector<BlockCopy>& copies, StepId reader) override;
  void release(BlockTable& table, StepId last_reader) override;

  void publish(BlockTable& table, std::span<const TokenId> tokens, std::uint32_t num_computed, bool tail,
               std::uint32_t left_out) override;
  std::uint32_t published(const BlockTable& table) const noexcept override;
  void clear_prefix_cache() noexcept override;
  std::vector<CacheEvent> take_events() override;
  void swap_out(std::span<const SequenceId> group, std::vector<BlockSwap>& moves, StepId last_reader) override;
  void swap_in(std::span<const SequenceId> group, std::vector<BlockSwap>& moves) override;
  std::unique_ptr<Scratch> scratch() const override;

  /// The common case of a decode: one more slot of a last block that nobody else can see. One cache line is read.
  static bool grows_in_place(const BlockTable& table, std::uint32_t length) noexcept {
    return length > table.length && length <= table.own_slots;
  }
  template <class Holders>
  bool copies_last(const BlockTable& table, Holders&& holders) const;

  SwapPool swap;

 protected:
  void check_rest() const override;
  bool has_content(BlockId block) const override;

 private:
  BlockId take();
  void grow(BlockTable& table, std::uint32_t length, std::vector<BlockCopy>& copies, StepId reader);
  void withdraw(BlockId block);
  void verify(const PrefixMatch& match, std::uint64_t salt) const;
  std::uint32_t trim_to_windows(const std::vector<BlockId>& entries, std::uint32_t num_tokens) const noexcept;
  bool publish_block(BlockTable& table, std::uint32_t at, std::span<const TokenId> key);

  std::optional<PrefixIndex> index;  // when prefix caching is on
  std::vector<std::uint32_t> marks;  // [num_blocks] all 0 between calls: scratch of swap_out()
};

/// Whether the last block is copied, in all groups of layers, before it is written: in one of them it is shared (they
/// differ where a window has passed in a longer sequence), or somebody may have borrowed what would be overwritten,
/// because the block was longer in a sequence that is gone.
template <class Holders>
bool PagedCache::copies_last(const BlockTable& table, Holders&& holders) const {
  bool copies = table.borrows;
  for (std::size_t i = table.blocks.size() - groups; i < table.blocks.size(); ++i) {
    const BlockId last = table.blocks[i];
    copies = copies || holders(last) > 1 || (pool.is_borrowed(last) && pool.is_cached(last));
  }
  return copies;
}

}  // namespace pagedcore::kv
