// The public face of the KV cache: checks what a call says, finds the table, and asks the implementation.
#include <algorithm>
#include <new>

#include "base/field_lists.hpp"
#include "base/host_memory.hpp"
#include "base/text.hpp"
#include "kv/paged.hpp"
#include "kv/reserved.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore {

void validate(const KvCacheConfig& config) {
  check_ranges(config, "KV cache option");
  if (config.windows.size() > kMostWindows) {
    throw InvalidArgument(
        str("windows names ", config.windows.size(), " groups of layers; there may be ", kMostWindows, " at most"));
  }
}

namespace {

/// What the tables of a cache take at most. Arithmetic, as memory that is promised and then not there ends the process.
std::uint64_t table_bytes(const KvCacheConfig& config) {
  const std::uint64_t groups = std::max<std::size_t>(config.windows.size(), 1);
  std::uint64_t block = 40;  // lists, references, fences, chunks
  if (config.allocation == AllocationPolicy::paged && config.enable_prefix_caching) {
    block += 72 + 4 * groups + std::uint64_t{config.block_size} * sizeof(TokenId);  // hash table, links, tokens
  }
  return config.num_blocks * block + std::uint64_t{config.num_swap_blocks} * 12;
}

void refuse_more_than_memory(const KvCacheConfig& config) {
  constexpr std::uint64_t kSmall = 64 << 20;  // is not asked about
  const std::uint64_t bytes = table_bytes(config);
  if (bytes < kSmall) return;
  const std::uint64_t left = available_host_memory();
  if (bytes <= left) return;
  throw OutOfMemory(str("the tables of ", config.num_blocks, " KV blocks of ", config.block_size, " tokens and ",
                        config.num_swap_blocks, " swap blocks take up to ", bytes, " bytes, but ", left,
                        " are available; lower num_blocks, block_size or num_swap_blocks"));
}

/// The only place that asks which of the two it is.
std::unique_ptr<kv::Cache> make_cache(const KvCacheConfig& config) {
  validate(config);
  refuse_more_than_memory(config);
  if (config.allocation == AllocationPolicy::paged) return std::make_unique<kv::PagedCache>(config);
  return std::make_unique<kv::ReservedCache>(config);
}

}  // namespace

KvCacheManager::KvCacheManager(const KvCacheConfig& config) try : impl_(make_cache(config)) {
} catch (const std::bad_alloc&) {
  throw OutOfMemory(str("no host memory for the tables of ", config.num_blocks, " KV blocks of ", config.block_size,
                        " tokens; lower num_blocks"));
}
KvCacheManager::~KvCacheManager() = default;
KvCacheManager::KvCacheManager(KvCacheManager&&) noexcept = default;
KvCacheManager& KvCacheManager::operator=(KvCacheManager&&) noexcept = default;

const KvCacheConfig& KvCacheManager::config() const noexcept { return impl_->config; }
KvTraits KvCacheManager::traits() const noexcept { return impl_->traits(); }
KvCacheCounts KvCacheManager::counts() const noexcept { return impl_->counts(); }
std::uint32_t KvCacheManager::available() const noexcept { return impl_->pool.available(); }
std::uint32_t KvCacheManager::blocks_for(std::uint64_t tokens) const noexcept { return impl_->blocks_for(tokens); }
std::uint32_t KvCacheManager::num_layer_groups() const noexcept { return impl_->groups; }

std::uint64_t KvCacheManager::footprint(std::uint64_t tokens) const noexcept {
  if (!impl_->has_windows) return std::uint64_t{impl_->blocks_for(tokens)} * impl_->groups;
  std::uint64_t blocks = 0;
  for (const std::uint32_t window : impl_->windows) {
    // The window - 1 tokens before the next one begin and end inside a block.
    const std::uint64_t all = impl_->blocks_for(tokens);
    blocks += window == 0 ? all : std::min<std::uint64_t>(all, std::uint64_t{impl_->blocks_for(window)} + 1);
  }
  return blocks;
}

bool KvCacheManager::contains(SequenceId seq) const noexcept { return impl_->slots.find(raw(seq)) != nullptr; }
std::uint32_t KvCacheManager::length(SequenceId seq) const { return impl_->table(seq).length; }
bool KvCacheManager::is_swapped(SequenceId seq) const { return impl_->table(seq).swapped; }
std::span<const BlockId> KvCacheManager::block_table(SequenceId seq) const { return impl_->table(seq).blocks; }
std::span<const SwapSlot> KvCacheManager::swap_slots(SequenceId seq) const { return impl_->table(seq).slots; }

std::vector<std::uint8_t> KvCacheManager::cells(std::uint32_t blocks_per_cell) const {
  const std::uint32_t size = impl_->pool.size(), step = std::max(blocks_per_cell, 1u);
  std::vector<std::uint8_t> cells((size - 1) / step + 1);
  for (std::uint32_t block = 0; block < size; ++block) {
    std::uint8_t& cell = cells[block / step];
    cell = std::max(cell, impl_->pool.cell(BlockId{block}));
  }
  return cells;
}

std::uint32_t KvCacheManager::references(BlockId block) const {
  if (raw(block) >= impl_->pool.size()) {
    throw InvalidArgument(str("block ", raw(block), " is outside the pool of ", impl_->pool.size(), " blocks"));
  }
  return impl_->pool.references(block);
}

PrefixMatch KvCacheManager::match_prefix(std::span<const TokenId> tokens, std::uint64_t salt, std::uint32_t max_tokens,
                                         bool whole_blocks) const {
  return impl_->match_prefix(tokens, salt, max_tokens, whole_blocks);
}

std::vector<BlockId> KvCacheManager::cached_blocks(std::span<const TokenId> tokens, std::uint64_t salt) const {
  return impl_->cached_blocks(tokens, salt);
}

std::vector<BlockId> KvCacheManager::import_prefix(std::span<const TokenId> tokens, std::uint64_t salt,
                                                   std::span<const std::uint8_t> offered) {
  const std::size_t blocks = tokens.size() / impl_->config.block_size * impl_->groups;
  if (offered.size() != blocks)
    throw InvalidArgument(str("import_prefix of ", tokens.size(), " tokens says of ", offered.size(),
                              " blocks whether they are offered; there are ", blocks));
  ++impl_->changes;
  return impl_->import_prefix(tokens, salt, offered);
}

void KvCacheManager::prepare(SequenceId seq, std::uint32_t length, std::uint64_t salt, const PrefixMatch& match,
                             const KvGroup& group) {
  ++impl_->changes;
  impl_->prepare(seq, length, salt, match, group);
}

void KvCacheManager::start(SequenceId seq, std::uint64_t salt, const PrefixMatch& match, const KvGroup& group) {
  ++impl_->changes;
  impl_->start(impl_->table(seq), salt, match, group);
}

void KvCacheManager::create(SequenceId seq, std::uint64_t salt, const PrefixMatch& match) {
  ++impl_->changes;
  impl_->prepare(seq, match.num_tokens, salt, match, {});
  impl_->start(impl_->table(seq), salt, match, {});
}

std::uint32_t KvCacheManager::reservation(std::uint32_t prompt, std::uint32_t max_output) const noexcept {
  return impl_->reservation(prompt, max_output);
}

std::string KvCacheManager::why_never(std::uint32_t sequences, std::uint32_t prompt, std::uint32_t max_output) const {
  return impl_->why_never(sequences, prompt, max_output);
}

KvSetAside KvCacheManager::set_aside(std::uint32_t prompt, std::uint32_t max_output,
                                     std::uint32_t length) const noexcept {
  return impl_->set_aside(prompt, max_output, length);
}

void KvCacheManager::create_reserved(SequenceId seq, std::uint32_t count, std::uint32_t tokens) {
  if (impl_->traits().grows) throw InvalidArgument("a paged cache reserves nothing; create() the sequence");
  const KvGroup group{count, tokens};
  ++impl_->changes;
  impl_->prepare(seq, tokens, 0, {}, group);
  try {
    impl_->start(impl_->table(seq), 0, {}, group);
  } catch (...) {
    free(seq, StepId{0});
    throw;
  }
}

void KvCacheManager::reserve(SequenceId seq, std::uint32_t length) {
  grow_capacity(impl_->table(seq).blocks, std::size_t{impl_->blocks_for(length)} * impl_->groups);
}

std::size_t KvCacheManager::most_copies(std::size_t sequences, std::size_t blocks) const noexcept {
  return impl_->most_copies(sequences, blocks);
}

std::span<const BlockId> KvCacheManager::append(SequenceId seq, std::uint32_t length, std::vector<BlockCopy>& copies,
                                                StepId reader) {
  kv::BlockTable& table = impl_->table(seq);
  ++impl_->changes;
  impl_->append(table, length, copies, reader);
  return table.blocks;
}

void KvCacheManager::prepare_fork(SequenceId parent, SequenceId child, std::uint32_t num_tokens) {
  ++impl_->changes;
  impl_->prepare_fork(parent, child, num_tokens);
}

void KvCacheManager::start_fork(SequenceId parent, SequenceId child, std::uint32_t num_tokens) {
  ++impl_->changes;
  impl_->start_fork(impl_->table(parent), impl_->table(child), num_tokens, nullptr);
}

void KvCacheManager::start_fork(SequenceId parent, SequenceId child, std::uint32_t num_tokens, std::uint64_t salt) {
  ++impl_->changes;
  impl_->start_fork(impl_->table(parent), impl_->table(child), num_tokens, &salt);
}

void KvCacheManager::fork(SequenceId parent, SequenceId child, std::uint32_t num_tokens) {
  prepare_fork(parent, child, num_tokens);
  start_fork(parent, child, num_tokens);
}

void KvCacheManager::fork(SequenceId parent, SequenceId child, std::uint32_t num_tokens, std::uint64_t salt) {
  prepare_fork(parent, child, num_tokens);
  start_fork(parent, child, num_tokens, salt);
}

std::uint32_t KvCacheManager::published(SequenceId seq) const { return impl_->published(impl_->table(seq)); }

void KvCacheManager::publish(SequenceId seq, std::span<const TokenId> tokens, std::uint32_t num_computed, bool tail,
                             std::uint32_t left_out) {
  kv::BlockTable& table = impl_->resident_table(seq);
  if (num_computed > table.length || num_computed > left_out + tokens.size()) {
    throw InvalidArgument(str("publish of ", num_computed, " computed tokens of sequence ", raw(seq), ", which has ",
                              table.length, " slots and came with ", left_out + tokens.size(), " tokens"));
  }
  if (left_out > 0 && left_out > impl_->published(table)) {
    throw InvalidArgument(str("publish without the first ", left_out, " tokens of sequence ", raw(seq), ", of which ",
                              impl_->published(table), " are known; leave out that many at most"));
  }
  ++impl_->changes;
  impl_->publish(table, tokens, num_computed, tail, left_out);
}

void KvCacheManager::slide(SequenceId seq, std::uint32_t next, StepId last_reader) {
  kv::BlockTable& table = impl_->resident_table(seq);
  if (next > table.length) {
    throw InvalidArgument(str("slide to position ", next, " of sequence ", raw(seq), ", which has ", table.length,
                              " tokens; its next position is its length at most"));
  }
  ++impl_->changes;
  for (std::uint32_t group = 0; group < impl_->groups; ++group) {
    // Blocks go in order, so those before the first that is gone are gone too.
    for (std::uint32_t i = impl_->first_visible(group, next); i-- > 0;) {
      BlockId& block = table.blocks[std::size_t{i} * impl_->groups + group];
      if (block == kNoBlock) break;
      impl_->pool.release(block, last_reader);
      block = kNoBlock;
    }
  }
}

void KvCacheManager::reserve_swap(SequenceId seq) {
  kv::BlockTable& table = impl_->table(seq);
  grow_capacity(table.slots, table.blocks.size());
}

void KvCacheManager::swap_out(std::span<const SequenceId> group, std::vector<BlockSwap>& moves, StepId last_reader) {
  ++impl_->changes;
  impl_->swap_out(group, moves, last_reader);
}

void KvCacheManager::swap_in(std::span<const SequenceId> group, std::vector<BlockSwap>& moves) {
  ++impl_->changes;
  impl_->swap_in(group, moves);
}

void KvCacheManager::free(SequenceId seq, StepId last_reader) {
  ++impl_->changes;
  impl_->release(impl_->table(seq), last_reader);
  impl_->drop_table(seq);
}

void KvCacheManager::complete(StepId step) noexcept {
  ++impl_->changes;
  impl_->complete(step);
}
void KvCacheManager::clear_prefix_cache() noexcept {
  ++impl_->changes;
  impl_->clear_prefix_cache();
}
std::vector<CacheEvent> KvCacheManager::take_events() { return impl_->take_events(); }
KvScratch KvCacheManager::scratch() const { return KvScratch(impl_->scratch()); }
void KvCacheManager::check() const { impl_->check(); }

KvScratch::KvScratch(std::unique_ptr<kv::Scratch> impl) noexcept : impl_(std::move(impl)) {}
KvScratch::~KvScratch() = default;
KvScratch::KvScratch(KvScratch&&) noexcept = default;
KvScratch& KvScratch::operator=(KvScratch&&) noexcept = default;

std::uint32_t KvScratch::available() const noexcept { return impl_->available; }
bool KvScratch::append(SequenceId seq, std::uint32_t length) {
  impl_->refuse_if_stale();
  return impl_->append(seq, length);
}
bool KvScratch::create(const PrefixMatch& match, std::uint32_t length, std::uint64_t spare, const KvGroup& group) {
  impl_->refuse_if_stale();
  return impl_->create(match, length, spare, group);
}
bool KvScratch::fork(SequenceId parent, std::uint32_t num_tokens, std::uint32_t length, std::uint64_t spare) {
  impl_->refuse_if_stale();
  return impl_->fork(parent, num_tokens, length, spare);
}
void KvScratch::free(SequenceId seq, StepId last_reader) {
  impl_->refuse_if_stale();
  impl_->free(seq, last_reader);
}
bool KvScratch::swap_out(std::span<const SequenceId> group, StepId last_reader) {
  impl_->refuse_if_stale();
  return impl_->swap_out(group, last_reader);
}
bool KvScratch::swap_in(std::span<const SequenceId> group, std::uint64_t spare) {
  impl_->refuse_if_stale();
  return impl_->swap_in(group, spare);
}

}  // namespace pagedcore
