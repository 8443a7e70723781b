// The threads that read and write a store's blocks, so that no step waits for a disk: one reads, one writes. Blocks are
// handed over in buffers of a fixed number, which bounds the memory.
//
// The engine thread asks and takes; the threads tell it by a callback that something has ended.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "store/block_store.hpp"

namespace pagedcore {

/// A fixed number of host buffers of one block each, in one mapping that is taken as it is used. Not thread-safe.
class BlockBuffers {
 public:
  /// Throws OutOfMemory.
  BlockBuffers(std::size_t count, std::size_t block_bytes);
  ~BlockBuffers();
  BlockBuffers(const BlockBuffers&) = delete;
  BlockBuffers& operator=(const BlockBuffers&) = delete;

  std::size_t available() const noexcept { return free_.size(); }
  std::size_t size() const noexcept { return count_; }
  std::byte* take() noexcept;  // null where there is none
  void give(std::byte* buffer) noexcept { free_.push_back(buffer); }

 private:
  std::size_t count_, bytes_;
  std::byte* memory_ = nullptr;
  std::vector<std::byte*> free_;
};

/// A block on its way from the store. `found`: the buffer holds it, verified.
struct StoredBlock {
  store::BlockKey key{};
  std::uint32_t index = 0;  // in its chain
  std::uint32_t group = 0;
  std::byte* buffer = nullptr;
  bool found = false;
};

/// Blocks of one chain, read together. `tokens`: those of the chain up to its last block.
struct ReadJob {
  std::shared_ptr<const std::vector<TokenId>> tokens;
  std::vector<StoredBlock> blocks;
};

struct WriteJob {
  store::BlockKey key{};
  std::uint32_t group = 0;
  std::vector<TokenId> tokens;  // of the block
  std::byte* buffer = nullptr;
};

class StoreWorker {
 public:
  /// Starts the threads, with all signals blocked. `tell` is called on them, and must neither throw nor block. At most
  /// `most_writes` blocks are handed over at a time. Throws OutOfMemory.
  StoreWorker(store::BlockStore& store, std::size_t most_writes, std::function<void()> tell);
  /// Drops what has not begun, and waits for what has.
  ~StoreWorker();
  StoreWorker(const StoreWorker&) = delete;
  StoreWorker& operator=(const StoreWorker&) = delete;

  // Lists of jobs, left empty: they are handed over without an allocation.
  void read(std::list<ReadJob>& jobs) noexcept;
  void write(std::list<WriteJob>& jobs) noexcept;
  /// Looks for what other engines have written, beside what is asked for.
  void refresh();
  /// Reads that ended, in order; buffers of writes that ended.
  std::list<ReadJob> take_read();
  void take_written(BlockBuffers& buffers);
  /// Waits until everything that was handed over is written, at most so many seconds. False where it is not.
  bool flush(double seconds);

 private:
  void run_reads() noexcept;
  void run_writes() noexcept;

  store::BlockStore& store_;
  const std::function<void()> tell_;
  std::mutex mutex_;
  std::condition_variable to_read_, to_write_, idle_;
  std::list<ReadJob> reads_, done_;  // a job moves from one to the other without an allocation
  std::list<WriteJob> writes_;
  std::vector<std::byte*> written_;
  bool writing_ = false, refresh_ = false, ends_ = false;
  std::thread reader_, writer_;
};

}  // namespace pagedcore
