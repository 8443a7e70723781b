// What goes between the prefix cache and a store: prefixes of finished requests are written, and what a plan asks for
// is read. All bookkeeping is the engine thread's, between steps; disks are the worker's. Every block that is on its
// way is a copy, so the cache's own accounting knows nothing of it.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "engine/store_worker.hpp"
#include "pagedcore/engine.hpp"
#include "pagedcore/trace.hpp"
#include "store/block_store.hpp"

namespace pagedcore {

/// Buffers of a store's traffic: blocks that may be on their way at once.
struct TrafficBuffers {
  std::size_t reads = 0;
  std::size_t writes = 0;
};
/// About 16 MiB each way, two chunks of one block of each group at least.
TrafficBuffers traffic_buffers(std::size_t block_bytes, std::size_t groups) noexcept;

class StoreTraffic {
 public:
  /// `tell` as of StoreWorker. Throws OutOfMemory.
  StoreTraffic(std::unique_ptr<store::BlockStore> store, std::function<void()> tell);
  ~StoreTraffic();
  StoreTraffic(const StoreTraffic&) = delete;
  StoreTraffic& operator=(const StoreTraffic&) = delete;

  /// Any thread: how many leading tokens, whole blocks, the store could give now. Touches no disk.
  std::uint32_t find(std::span<const TokenId> tokens, std::uint64_t salt) const;

  // Engine thread. What throws std::bad_alloc may be called again, or left.

  /// What a plan asks for. `most`: leading tokens of use.
  void want(RequestId id, std::span<const TokenId> prompt, std::uint64_t salt);
  /// The KV of these tokens is in the cache: what the store lacks of it is to be written.
  void keep(std::vector<TokenId> tokens, std::uint64_t salt);
  /// What can be done now, at most so many bytes copied out of the cache.
  void work(Scheduler& scheduler, Executor& executor, TraceWriter* trace, std::size_t most_bytes);
  /// At the end of an engine: writes what is kept, for at most so many seconds.
  void flush(Scheduler& scheduler, Executor& executor, double seconds);
  KvStoreCounters counters() const;
  /// Whether work() could do something now that nobody tells of.
  bool has_work() const noexcept { return !kept_.empty() && write_buffers_.available() >= format_.groups; }
  bool has_windows() const noexcept;

 private:
  struct Chain {
    std::shared_ptr<const std::vector<TokenId>> tokens;
    std::uint64_t salt = 0;
    std::vector<store::BlockKey> keys;
    std::size_t next = 0;  // block, of those in keys
  };
  /// A request that waits for its prefix.
  struct Reading {
    RequestId id{};
    Chain chain;
    bool begun = false;
    std::vector<StoredBlock> missing;  // those in the cache already are not read
    std::size_t next = 0;              // of missing
    std::size_t under_way = 0;         // jobs
    bool failed = false;               // a block was not there after all: what comes behind is of no use
  };

  Chain chain_of(std::span<const TokenId> tokens, std::uint64_t salt) const;
  void begin(const Scheduler& scheduler, Reading& reading) const;
  void give_back(ReadJob& job) noexcept;
  void take_in(ReadJob& job, Scheduler& scheduler, Executor& executor, TraceWriter* trace);
  void read_on(Scheduler& scheduler, TraceWriter* trace);
  std::size_t write_some(Scheduler& scheduler, Executor& executor, std::size_t most_bytes);

  const std::unique_ptr<store::BlockStore> store_;
  const store::BlockFormat format_;
  std::deque<Reading> readings_;  // the first is being read
  std::list<ReadJob> arrived_;
  std::deque<Chain> kept_;
  std::size_t kept_tokens_ = 0;
  KvStoreCounters counters_;
  BlockBuffers read_buffers_, write_buffers_;
  StoreWorker worker_;
};

}  // namespace pagedcore
