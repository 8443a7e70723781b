#include "kv/manager.hpp"

#include <algorithm>
#include <limits>
#include <new>

#include "base/text.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore {
namespace {

using kv::BlockTable;
using kv::PrefixLink;

const KvCacheConfig& validated(const KvCacheConfig& config) {
  if (config.num_blocks == 0 || config.num_blocks == raw(kNoBlock)) {
    throw InvalidArgument(str("num_blocks is ", config.num_blocks, "; it must be in [1, ", raw(kNoBlock) - 1, "]"));
  }
  if (config.block_size == 0 || config.block_size > 65536) {
    throw InvalidArgument(str("block_size is ", config.block_size, "; it must be in [1, 65536] tokens"));
  }
  return config;
}

/// Room for `size` elements, growing geometrically: a sequence that grows by one reallocates O(log n) times.
template <class T>
void grow_capacity(std::vector<T>& vector, std::size_t size) {
  if (size > vector.capacity()) vector.reserve(std::max(size, 2 * vector.capacity()));
}

}  // namespace

KvCacheManager::Impl::Impl(const KvCacheConfig& config_) : config(validated(config_)), pool(config.num_blocks) {
  if (config.enable_prefix_caching) index.emplace(config.num_blocks, config.block_size, config.prefix_hash);
}

std::uint32_t KvCacheManager::Impl::blocks_for(std::uint64_t tokens) const noexcept {
  const std::uint64_t blocks = tokens / config.block_size + (tokens % config.block_size != 0);
  return static_cast<std::uint32_t>(std::min<std::uint64_t>(blocks, std::numeric_limits<std::uint32_t>::max()));
}

const BlockTable& KvCacheManager::Impl::table(SequenceId seq) const {
  if (const std::uint32_t* slot = slots.find(raw(seq))) return tables[*slot];
  throw InvalidArgument(str("sequence ", raw(seq), " is unknown; create() or fork() it first"));
}

BlockTable& KvCacheManager::Impl::table(SequenceId seq) {
  return const_cast<BlockTable&>(std::as_const(*this).table(seq));
}

/// An empty table with room for `num_blocks`. Everything that may throw comes first; only then `seq` is known.
BlockTable& KvCacheManager::Impl::new_table(SequenceId seq, std::size_t num_blocks) {
  if (slots.find(raw(seq)) != nullptr) {
    throw InvalidArgument(str("sequence ", raw(seq), " already exists; free() it first or choose another id"));
  }
  if (free_slots.empty()) {
    grow_capacity(tables, tables.size() + 1);
    grow_capacity(free_slots, tables.size() + 1);  // so that free() never allocates
    tables.emplace_back();
    free_slots.push_back(static_cast<std::uint32_t>(tables.size() - 1));
  }
  const std::uint32_t slot = free_slots.back();
  BlockTable& table = tables[slot];
  grow_capacity(table.blocks, num_blocks);
  slots[raw(seq)] = slot;
  free_slots.pop_back();
  table.sequence = seq;
  table.live = true;
  return table;
}

/// The next reusable block, its cached contents forgotten.
BlockId KvCacheManager::Impl::take() {
  const BlockId block = pool.next();
  if (raw(block) < pool.size() && pool.is_cached(block)) withdraw(block);
  return pool.take();
}

void KvCacheManager::Impl::withdraw(BlockId block) {
  index->erase(block);
  pool.set_cached(block, false);
}

/// A match outlives its manager's state only by mistake; a stale one is recognised in O(1) per block.
void KvCacheManager::Impl::verify(const PrefixMatch& match, std::uint64_t salt) const {
  bool valid = match.num_tokens == std::uint64_t{match.blocks.size()} * config.block_size;
  PrefixLink parent = PrefixLink::root(salt);
  for (const BlockId block : match.blocks) {
    valid = valid && index && raw(block) < pool.size() && index->contains(block) && index->parent(block) == parent;
    if (!valid) break;
    parent = index->link(block);
  }
  if (!valid) {
    throw InvalidArgument(str("the prefix match of ", match.num_tokens, " tokens is not (or no longer) what the cache ",
                              "holds; use match_prefix() with the same salt right before create()"));
  }
}

KvCacheManager::KvCacheManager(const KvCacheConfig& config) try : impl_(std::make_unique<Impl>(config)) {
} catch (const std::bad_alloc&) {
  throw OutOfMemory(str("no host memory for the tables of ", config.num_blocks, " KV blocks of ", config.block_size,
                        " tokens; lower num_blocks"));
}
KvCacheManager::~KvCacheManager() = default;
KvCacheManager::KvCacheManager(KvCacheManager&&) noexcept = default;
KvCacheManager& KvCacheManager::operator=(KvCacheManager&&) noexcept = default;

const KvCacheConfig& KvCacheManager::config() const noexcept { return impl_->config; }
KvCacheCounts KvCacheManager::counts() const noexcept { return impl_->pool.counts(); }
std::uint32_t KvCacheManager::available() const noexcept { return impl_->pool.available(); }
std::uint32_t KvCacheManager::blocks_for(std::uint64_t tokens) const noexcept { return impl_->blocks_for(tokens); }
bool KvCacheManager::contains(SequenceId seq) const noexcept { return impl_->slots.find(raw(seq)) != nullptr; }
std::uint32_t KvCacheManager::length(SequenceId seq) const { return impl_->table(seq).length; }
std::span<const BlockId> KvCacheManager::block_table(SequenceId seq) const { return impl_->table(seq).blocks; }

std::uint32_t KvCacheManager::references(BlockId block) const {
  if (raw(block) >= impl_->pool.size()) {
    throw InvalidArgument(str("block ", raw(block), " is outside the pool of ", impl_->pool.size(), " blocks"));
  }
  return impl_->pool.references(block);
}

PrefixMatch KvCacheManager::match_prefix(std::span<const TokenId> tokens, std::uint64_t salt,
                                         std::uint32_t max_tokens) const {
  PrefixMatch match;
  if (!impl_->index) return match;
  const std::uint32_t block_size = impl_->config.block_size;
  const std::size_t limit = std::min<std::size_t>(tokens.size(), max_tokens) / block_size;
  PrefixLink parent = PrefixLink::root(salt);
  while (match.blocks.size() < limit) {
    const BlockId block = impl_->index->find(parent, tokens.subspan(match.blocks.size() * block_size, block_size));
    if (block == kNoBlock) break;
    match.blocks.push_back(block);
    parent = impl_->index->link(block);
  }
  match.num_tokens = static_cast<std::uint32_t>(match.blocks.size() * block_size);
  return match;
}

void KvCacheManager::create(SequenceId seq, std::uint64_t salt, const PrefixMatch& match) {
  impl_->verify(match, salt);
  BlockTable& table = impl_->new_table(seq, match.blocks.size());
  for (const BlockId block : match.blocks) {
    impl_->pool.hold(block);
    table.blocks.push_back(block);
  }
  table.length = match.num_tokens;
  table.salt = salt;
  table.published = static_cast<std::uint32_t>(match.blocks.size());
  table.tail = match.blocks.empty() ? PrefixLink::root(salt) : impl_->index->link(match.blocks.back());
}

void KvCacheManager::reserve(SequenceId seq, std::uint32_t length) {
  grow_capacity(impl_->table(seq).blocks, impl_->blocks_for(length));
}

void KvCacheManager::append(SequenceId seq, std::uint32_t length, std::vector<BlockCopy>& copies) {
  BlockTable& table = impl_->table(seq);
  if (length < table.length) {
    throw InvalidArgument(str("append to length ", length, " of sequence ", raw(seq), ", which has length ",
                              table.length, " already; a table only grows (fork() a shorter prefix instead)"));
  }
  if (length == table.length) return;
  const bool writes_last = impl_->is_partial(table.length);
  const bool copies_last = writes_last && impl_->pool.references(table.blocks.back()) > 1;
  const std::uint32_t size = impl_->blocks_for(length);
  const std::uint64_t needed = size - table.blocks.size() + copies_last;
  if (needed > available()) {
    throw OutOfMemory(str("sequence ", raw(seq), " needs ", needed, " more KV blocks to grow from ", table.length,
                          " to ", length, " tokens, but ", available(), " of ", impl_->pool.size(),
                          " are available; free or preempt a sequence, or enlarge the pool"));
  }
  grow_capacity(table.blocks, size);
  if (copies_last) grow_capacity(copies, copies.size() + 1);
  // From here on nothing throws.
  if (copies_last) {
    BlockId& last = table.blocks.back();
    const BlockId copy = impl_->take();
    copies.push_back({last, copy, table.length % impl_->config.block_size});
    impl_->pool.release(last, StepId{0});  // others hold it, and their releases carry the fence
    last = copy;
  } else if (writes_last && impl_->pool.is_cached(table.blocks.back())) {
    // The block was full in a longer parent that is gone; we own it alone and overwrite what was published.
    impl_->withdraw(table.blocks.back());
  }
  while (table.blocks.size() < size) table.blocks.push_back(impl_->take());
  table.length = length;
}

void KvCacheManager::fork(SequenceId parent_id, SequenceId child_id, std::uint32_t num_tokens) {
  if (num_tokens > length(parent_id)) {
    throw InvalidArgument(str("fork at ", num_tokens, " tokens of sequence ", raw(parent_id), ", which has ",
                              length(parent_id), "; fork at its length or before"));
  }
  const std::uint32_t size = impl_->blocks_for(num_tokens);
  BlockTable& child = impl_->new_table(child_id, size);
  const BlockTable& parent = impl_->table(parent_id);
  for (std::uint32_t i = 0; i < size; ++i) {
    impl_->pool.hold(parent.blocks[i]);
    child.blocks.push_back(parent.blocks[i]);
  }
  child.length = num_tokens;
  child.salt = parent.salt;
  child.publishes = parent.publishes;
  const std::uint32_t full = num_tokens / impl_->config.block_size;
  if (parent.published <= full) {
    child.published = parent.published;
    child.tail = parent.tail;
  } else if (full > 0 && impl_->index->contains(child.blocks[full - 1])) {
    child.published = full;
    child.tail = impl_->index->link(child.blocks[full - 1]);
  } else {
    child.published = 0;  // the next publish() walks from the start
    child.tail = PrefixLink::root(child.salt);
  }
}

void KvCacheManager::publish(SequenceId seq, std::span<const TokenId> tokens, std::uint32_t num_computed) {
  BlockTable& table = impl_->table(seq);
  if (num_computed > table.length || num_computed > tokens.size()) {
    throw InvalidArgument(str("publish of ", num_computed, " computed tokens of sequence ", raw(seq), ", which has ",
                              table.length, " slots and came with ", tokens.size(), " tokens"));
  }
  const std::uint32_t block_size = impl_->config.block_size;
  const std::uint32_t full = num_computed / block_size;
  if (!impl_->index || !table.publishes || table.published >= full) return;
  kv::PrefixIndex& index = *impl_->index;
  if (!index.is_alive(table.tail)) {
    // The block of another sequence that stood for ours was evicted: start over, now with our own.
    table.published = 0;
    table.tail = PrefixLink::root(table.salt);
  }
  for (; table.published < full; ++table.published) {
    const auto key = tokens.subspan(std::size_t{table.published} * block_size, block_size);
    BlockId block = index.find(table.tail, key);
    if (block == kNoBlock) {
      block = table.blocks[table.published];
      if (index.contains(block)) index.erase(block);  // it was published under a parent that is gone
      index.insert(block, table.tail, key);
      impl_->pool.set_cached(block, true);
    }
    table.tail = index.link(block);
  }
}

void KvCacheManager::free(SequenceId seq, StepId last_reader) {
  BlockTable& table = impl_->table(seq);
  const std::uint32_t slot = static_cast<std::uint32_t>(&table - impl_->tables.data());
  // Tail first: the end of a prefix is evicted before its beginning, without which it is of no use.
  for (std::size_t i = table.blocks.size(); i-- > 0;) impl_->pool.release(table.blocks[i], last_reader);
  std::vector<BlockId> memory = std::move(table.blocks);
  memory.clear();
  table = BlockTable{};
  table.blocks = std::move(memory);
  impl_->slots.erase(raw(seq));
  impl_->free_slots.push_back(slot);
}

void KvCacheManager::complete(StepId step) noexcept { impl_->pool.complete(step); }

void KvCacheManager::clear_prefix_cache() noexcept {
  if (!impl_->index) return;
  impl_->index->clear();
  for (std::uint32_t block = 0; block < impl_->pool.size(); ++block) impl_->pool.set_cached(BlockId{block}, false);
  for (BlockTable& table : impl_->tables) {
    table.published = 0;
    table.tail = PrefixLink::root(table.salt);
    table.publishes = table.publishes && !table.live;
  }
}

}  // namespace pagedcore
