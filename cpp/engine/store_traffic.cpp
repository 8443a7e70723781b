#include "engine/store_traffic.hpp"

#include <algorithm>
#include <chrono>
#include <exception>
#include <new>
#include <utility>

namespace pagedcore {
namespace {

constexpr std::size_t kBufferBytes = std::size_t{16} << 20;    // each way
constexpr std::size_t kMostKeptTokens = std::size_t{4} << 20;  // of prefixes that wait to be written: 16 MiB of tokens
constexpr double kRefreshEvery = 1.0;                          // seconds, while requests come

}  // namespace

TrafficBuffers traffic_buffers(std::size_t block_bytes, std::size_t groups) noexcept {
  const std::size_t count = std::max(kBufferBytes / block_bytes, 2 * groups);
  return {count, count};
}

StoreTraffic::StoreTraffic(std::unique_ptr<store::BlockStore> store, std::function<void()> tell)
    : store_(std::move(store)),
      format_(store_->config().format),
      read_buffers_(traffic_buffers(format_.block_bytes, format_.groups).reads, format_.block_bytes),
      write_buffers_(traffic_buffers(format_.block_bytes, format_.groups).writes, format_.block_bytes),
      worker_(*store_, write_buffers_.size(), std::move(tell)) {}

StoreTraffic::~StoreTraffic() = default;

std::uint32_t StoreTraffic::find(std::span<const TokenId> tokens, std::uint64_t salt) const {
  return store_->find_chain(store::root_key(store_->config().identity.digest, {salt}), tokens);
}

StoreTraffic::Chain StoreTraffic::chain_of(std::span<const TokenId> tokens, std::uint64_t salt) const {
  const std::size_t whole = tokens.size() / format_.block_size * format_.block_size;
  Chain chain;
  chain.tokens =
      std::make_shared<const std::vector<TokenId>>(tokens.begin(), tokens.begin() + static_cast<std::ptrdiff_t>(whole));
  chain.salt = salt;
  chain.keys =
      store::chain_keys(store::root_key(store_->config().identity.digest, {salt}), *chain.tokens, format_.block_size);
  return chain;
}

void StoreTraffic::want(RequestId id, std::span<const TokenId> prompt, std::uint64_t salt) {
  Reading reading;
  reading.id = id;
  reading.chain = chain_of(prompt, salt);
  readings_.push_back(std::move(reading));
}

void StoreTraffic::keep(std::vector<TokenId> tokens, std::uint64_t salt) {
  if (tokens.size() < format_.block_size) return;
  if (kept_tokens_ + tokens.size() > kMostKeptTokens) {
    ++counters_.dropped;
    return;
  }
  kept_.push_back(chain_of(tokens, salt));
  kept_tokens_ += kept_.back().tokens->size();
}

/// Lists what is to be read: of the chain, as far as the store has it, the blocks that the cache lacks.
void StoreTraffic::begin(const Scheduler& scheduler, Reading& reading) const {
  reading.begun = true;
  const Chain& chain = reading.chain;
  const std::uint32_t groups = format_.groups;
  const std::uint32_t tokens =
      store_->find_chain(store::root_key(store_->config().identity.digest, {chain.salt}), *chain.tokens);
  const std::size_t blocks = tokens / format_.block_size;
  const std::vector<BlockId> cached = scheduler.cache().cached_blocks(*chain.tokens, chain.salt);
  const std::vector<std::uint32_t>& windows = store_->config().windows;
  for (std::size_t i = 0; i < blocks; ++i) {
    for (std::uint32_t group = 0; group < groups; ++group) {
      const std::size_t at = i * groups + group;
      if (at < cached.size() && cached[at] != kNoBlock) continue;
      const std::uint32_t window = windows[group];
      // A block more than the window reaches: the request goes on from its last token but one at the earliest.
      const bool is_seen = group == 0 || window == 0 || (i + 1) * format_.block_size + window + 1 > tokens;
      if (is_seen && store_->has(chain.keys[i], group))
        reading.missing.push_back({chain.keys[i], static_cast<std::uint32_t>(i), group, nullptr, false});
    }
  }
}

bool StoreTraffic::has_windows() const noexcept {
  return std::ranges::any_of(store_->config().windows, [](std::uint32_t window) { return window > 0; });
}

void StoreTraffic::give_back(ReadJob& job) noexcept {
  for (StoredBlock& block : job.blocks) {
    if (block.buffer != nullptr) read_buffers_.give(std::exchange(block.buffer, nullptr));
  }
}

/// What was read goes to the cache, as far as it verified. Between taking blocks, which publishes them, and filling
/// them nothing may fail: all memory comes first.
void StoreTraffic::take_in(ReadJob& job, Scheduler& scheduler, Executor& executor, TraceWriter* trace) {
  Reading& reading = readings_.front();  // nothing else is being read
  const std::size_t groups = format_.groups, end = job.blocks.back().index + std::size_t{1};
  const auto tokens = std::span(*job.tokens).first(end * format_.block_size);
  std::vector<std::uint8_t> offered(end * groups);
  for (const StoredBlock& block : job.blocks) {
    offered[block.index * groups + block.group] = block.found;
    reading.failed |= !block.found && block.group == 0;
  }
  std::vector<BlockId> blocks;
  std::vector<const std::byte*> sources;
  blocks.reserve(job.blocks.size());
  sources.reserve(job.blocks.size());
  const std::vector<BlockId> taken = scheduler.import_prefix(tokens, reading.chain.salt, offered);
  if (trace != nullptr) trace->import_prefix(tokens, reading.chain.salt, offered);
  for (const StoredBlock& block : job.blocks) {
    const std::size_t at = block.index * groups + block.group;
    if (at >= taken.size() || taken[at] == kNoBlock) continue;
    blocks.push_back(taken[at]);
    sources.push_back(block.buffer);
    counters_.tokens += block.group == 0 ? format_.block_size : 0;
  }
  if (!blocks.empty()) executor.put_blocks(blocks, sources);
}

/// Starts reads of the first request that waits, and ends those that have got what there is.
void StoreTraffic::read_on(Scheduler& scheduler, TraceWriter* trace) {
  while (!readings_.empty()) {
    Reading& reading = readings_.front();
    if (!reading.begun) begin(scheduler, reading);
    while (!reading.failed && reading.next < reading.missing.size() && reading.under_way < 2) {
      // Two jobs at a time: one is read while the other goes to the cache.
      const std::size_t most = std::min(read_buffers_.size() / 2, read_buffers_.available());
      const std::size_t count = std::min(most, reading.missing.size() - reading.next);
      if (count == 0) break;
      ReadJob job{reading.chain.tokens, {}};  // memory first: what follows hands buffers over
      job.blocks.assign(reading.missing.begin() + static_cast<std::ptrdiff_t>(reading.next),
                        reading.missing.begin() + static_cast<std::ptrdiff_t>(reading.next + count));
      std::list<ReadJob> handed;
      handed.push_back(std::move(job));
      for (StoredBlock& block : handed.front().blocks) block.buffer = read_buffers_.take();
      reading.next += count;
      ++reading.under_way;
      worker_.read(handed);
    }
    if (reading.under_way > 0) return;
    scheduler.end_store_read(reading.id);
    if (trace != nullptr) trace->end_store_read(reading.id);
    readings_.pop_front();
  }
}

/// Copies blocks that the store lacks out of the cache, as far as there are buffers. Returns the bytes.
std::size_t StoreTraffic::write_some(Scheduler& scheduler, Executor& executor, std::size_t most_bytes) {
  worker_.take_written(write_buffers_);
  const std::size_t groups = format_.groups;
  std::size_t copied = 0;
  while (!kept_.empty() && copied < most_bytes && write_buffers_.available() >= groups) {
    Chain& chain = kept_.front();
    const std::vector<BlockId> cached = scheduler.cache().cached_blocks(*chain.tokens, chain.salt);
    const std::size_t there = cached.size() / groups;
    std::vector<BlockId> blocks;
    std::vector<std::byte*> places;
    std::list<WriteJob> jobs;
    const std::size_t most = std::min(write_buffers_.available(), (there - std::min(there, chain.next)) * groups);
    const auto give_back = [&] {
      for (std::byte* place : places) write_buffers_.give(place);
    };
    try {
      blocks.reserve(most);
      places.reserve(most);
      for (; chain.next < there && copied < most_bytes && write_buffers_.available() >= groups; ++chain.next) {
        const auto tokens = std::span(*chain.tokens).subspan(chain.next * format_.block_size, format_.block_size);
        for (std::uint32_t group = 0; group < groups; ++group) {
          const BlockId block = cached[chain.next * groups + group];
          if (block == kNoBlock || store_->has(chain.keys[chain.next], group)) continue;
          blocks.push_back(block);
          jobs.push_back({chain.keys[chain.next], group, {tokens.begin(), tokens.end()}, nullptr});
          places.push_back(jobs.back().buffer = write_buffers_.take());
          copied += format_.block_bytes;
        }
      }
      if (!blocks.empty()) executor.get_blocks(blocks, places);
    } catch (const std::exception&) {  // no memory, or a device that does not give its blocks: they are not kept
      give_back();
      jobs.clear();
      chain.next = there;
      ++counters_.dropped;
    }
    worker_.write(jobs);
    if (chain.next < there) break;
    counters_.dropped += chain.keys.size() > there;  // its end was evicted before its turn
    kept_tokens_ -= chain.tokens->size();
    kept_.pop_front();
  }
  return copied;
}

void StoreTraffic::work(Scheduler& scheduler, Executor& executor, TraceWriter* trace, std::size_t most_bytes) {
  arrived_.splice(arrived_.end(), worker_.take_read());
  while (!arrived_.empty()) {
    ReadJob& job = arrived_.front();
    --readings_.front().under_way;
    try {
      take_in(job, scheduler, executor, trace);
    } catch (const std::bad_alloc&) {
      readings_.front().failed = true;
    }
    give_back(job);
    arrived_.pop_front();
  }
  read_on(scheduler, trace);
  write_some(scheduler, executor, most_bytes);
  if (scheduler.has_work() && store_->staleness() > kRefreshEvery) worker_.refresh();
}

void StoreTraffic::flush(Scheduler& scheduler, Executor& executor, double seconds) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  const auto left = [&] { return std::chrono::duration<double>(end - std::chrono::steady_clock::now()).count(); };
  do {
    write_some(scheduler, executor, ~std::size_t{0});
  } while (worker_.flush(std::max(left(), 0.0)) && !kept_.empty() && left() > 0);
}

KvStoreCounters StoreTraffic::counters() const {
  KvStoreCounters counters = counters_;
  const store::StoreCounts counts = store_->counts();
  counters.bytes_read = counts.bytes_read;
  counters.bytes_written = counts.bytes_written;
  counters.errors = counts.errors;
  counters.evicted = counts.evicted;
  counters.blocks = counts.blocks;
  counters.bytes = counts.bytes;
  return counters;
}

}  // namespace pagedcore
