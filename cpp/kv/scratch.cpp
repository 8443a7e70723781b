// KvScratch: what the manager's counts would be after some operations, in memory proportional to what they touch.
#include <memory>

#include "kv/flat_map.hpp"
#include "kv/manager.hpp"

namespace pagedcore {

struct KvScratch::Impl {
  /// A sequence that took or gave up blocks here: the first `kept` blocks of its table, then `taken` new ones of its
  /// own.
  struct Table {
    std::uint32_t kept = 0;
    std::uint32_t taken = 0;
    bool freed = false;
  };
  /// A block whose references differ here.
  struct Block {
    std::uint32_t references = 0;
    bool available = false;  // with no references: counted in `available`
    bool fenced = false;     // some release waits for a step in flight
    bool withdrawn = false;  // leaves the prefix index: its last holder is going to write to it
  };

  explicit Impl(const KvCacheManager::Impl& kv_) : kv(&kv_), available(kv_.pool.available()) {}

  std::uint32_t references(BlockId block) const {
    const Block* touched = blocks.find(raw(block));
    return touched != nullptr ? touched->references : kv->pool.references(block);
  }

  Block& touch(BlockId block) {
    if (Block* touched = blocks.find(raw(block))) return *touched;
    Block& added = blocks[raw(block)];
    added = {.references = kv->pool.references(block), .available = kv->pool.is_reusable(block)};
    return added;
  }

  void hold(BlockId id) {
    Block& block = touch(id);
    if (block.references++ == 0 && block.available) --available;
  }

  void release(BlockId id, StepId last_reader) {
    Block& block = touch(id);
    block.fenced = block.fenced || !kv->pool.is_unfenced(id, last_reader);
    if (--block.references != 0) return;
    block.available = !block.fenced;
    available += block.available;
  }

  Table table(const kv::BlockTable& real) const {
    if (const Table* touched = tables.find(raw(real.sequence))) return *touched;
    return {.kept = static_cast<std::uint32_t>(real.blocks.size())};
  }

  const KvCacheManager::Impl* kv;
  std::uint32_t available;
  kv::FlatMap<Table> tables;
  kv::FlatMap<Block> blocks;
};

KvScratch::KvScratch(std::unique_ptr<Impl> impl) noexcept : impl_(std::move(impl)) {}
KvScratch::~KvScratch() = default;
KvScratch::KvScratch(KvScratch&&) noexcept = default;
KvScratch& KvScratch::operator=(KvScratch&&) noexcept = default;

KvScratch KvCacheManager::scratch() const { return KvScratch(std::make_unique<KvScratch::Impl>(*impl_)); }

std::uint32_t KvScratch::available() const noexcept { return impl_->available; }

bool KvScratch::append(SequenceId seq, std::uint32_t length) {
  const kv::BlockTable& real = impl_->kv->table(seq);
  const Impl::Table table = impl_->table(real);
  if (table.freed) return false;
  const std::uint32_t size = impl_->kv->blocks_for(length);
  const std::uint32_t had = table.kept + table.taken;
  // A block taken here is the sequence's own; only one of the real table can be shared or published.
  const bool writes_last = length > real.length && impl_->kv->is_partial(real.length) && table.taken == 0;
  const bool copies_last = writes_last && impl_->references(real.blocks.back()) > 1;
  const std::uint32_t needed = (size > had ? size - had : 0) + copies_last;
  if (needed > impl_->available) return false;
  if (needed > 0) {
    impl_->tables[raw(seq)] = {table.kept - copies_last, table.taken + needed, false};
    impl_->available -= needed;
  }
  if (copies_last) {
    impl_->release(real.blocks.back(), StepId{0});
  } else if (writes_last && impl_->kv->pool.is_cached(real.blocks.back())) {
    impl_->touch(real.blocks.back()).withdrawn = true;
  }
  return true;
}

bool KvScratch::create(const PrefixMatch& match, std::uint32_t length) {
  const std::uint32_t size = impl_->kv->blocks_for(length);
  const auto matched = static_cast<std::uint32_t>(match.blocks.size());
  std::uint32_t needed = size > matched ? size - matched : 0;
  const std::uint32_t taken = needed;
  for (const BlockId id : match.blocks) {
    const Impl::Block* touched = impl_->blocks.find(raw(id));
    if (touched != nullptr && touched->withdrawn) return false;
    needed += touched != nullptr ? touched->references == 0 && touched->available : impl_->kv->pool.is_reusable(id);
  }
  if (needed > impl_->available) return false;
  for (const BlockId id : match.blocks) impl_->hold(id);
  impl_->available -= taken;
  return true;
}

bool KvScratch::fork(SequenceId parent, std::uint32_t num_tokens, std::uint32_t length) {
  const kv::BlockTable& real = impl_->kv->table(parent);
  const Impl::Table table = impl_->table(real);
  const std::uint32_t shared = impl_->kv->blocks_for(num_tokens);
  if (table.freed || shared > table.kept) return false;  // only what the manager already holds can be shared
  const bool copies_last = length > num_tokens && impl_->kv->is_partial(num_tokens);
  const std::uint32_t size = impl_->kv->blocks_for(length);
  const std::uint32_t needed = (size > shared ? size - shared : 0) + copies_last;
  if (needed > impl_->available) return false;
  for (std::uint32_t i = 0; i < shared - copies_last; ++i) impl_->hold(real.blocks[i]);
  impl_->available -= needed;
  return true;
}

void KvScratch::free(SequenceId seq, StepId last_reader) {
  const kv::BlockTable& real = impl_->kv->table(seq);
  const Impl::Table table = impl_->table(real);
  if (table.freed) return;
  impl_->tables[raw(seq)] = {0, 0, true};
  for (std::uint32_t i = table.kept; i-- > 0;) impl_->release(real.blocks[i], last_reader);
  impl_->available += table.taken;
}

}  // namespace pagedcore
