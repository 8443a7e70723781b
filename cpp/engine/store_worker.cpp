#include "engine/store_worker.hpp"

#include <sys/mman.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <system_error>
#include <utility>

#include "base/signals_blocked.hpp"
#include "base/text.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore {

BlockBuffers::BlockBuffers(std::size_t count, std::size_t block_bytes) : count_(count), bytes_(count * block_bytes) {
  void* memory = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED)
    throw OutOfMemory(str("buffers of ", count, " blocks x ", block_bytes, " = ", bytes_,
                          " bytes of host memory for kv_store: ", std::strerror(errno)));
  memory_ = static_cast<std::byte*>(memory);
  free_.reserve(count);
  for (std::size_t i = count; i-- > 0;) free_.push_back(memory_ + i * block_bytes);
}

BlockBuffers::~BlockBuffers() { munmap(memory_, bytes_); }

std::byte* BlockBuffers::take() noexcept {
  if (free_.empty()) return nullptr;
  std::byte* buffer = free_.back();
  free_.pop_back();
  return buffer;
}

StoreWorker::StoreWorker(store::BlockStore& store, std::size_t most_writes, std::function<void()> tell)
    : store_(store), tell_(std::move(tell)) {
  written_.reserve(most_writes);
  const SignalsBlocked blocked;
  try {
    reader_ = std::thread([this] { run_reads(); });
    writer_ = std::thread([this] { run_writes(); });
  } catch (const std::system_error& error) {
    if (reader_.joinable()) {
      {
        const std::lock_guard lock(mutex_);
        ends_ = true;
      }
      to_read_.notify_all();
      reader_.join();
    }
    throw OutOfMemory(str("the threads of kv_store could not be started: ", error.what()));
  }
}

StoreWorker::~StoreWorker() {
  {
    const std::lock_guard lock(mutex_);
    ends_ = true;
  }
  to_read_.notify_all();
  to_write_.notify_all();
  reader_.join();
  writer_.join();
}

void StoreWorker::read(std::list<ReadJob>& jobs) noexcept {
  {
    const std::lock_guard lock(mutex_);
    reads_.splice(reads_.end(), jobs);
  }
  to_read_.notify_one();
}

void StoreWorker::write(std::list<WriteJob>& jobs) noexcept {
  {
    const std::lock_guard lock(mutex_);
    writes_.splice(writes_.end(), jobs);
  }
  to_write_.notify_one();
}

void StoreWorker::refresh() {
  {
    const std::lock_guard lock(mutex_);
    refresh_ = true;
  }
  to_read_.notify_one();
}

std::list<ReadJob> StoreWorker::take_read() {
  const std::lock_guard lock(mutex_);
  return std::exchange(done_, {});
}

void StoreWorker::take_written(BlockBuffers& buffers) {
  const std::lock_guard lock(mutex_);
  for (std::byte* buffer : written_) buffers.give(buffer);
  written_.clear();
}

bool StoreWorker::flush(double seconds) {
  std::unique_lock lock(mutex_);
  return idle_.wait_for(lock, std::chrono::duration<double>(seconds), [&] { return writes_.empty() && !writing_; });
}

void StoreWorker::run_reads() noexcept {
  std::unique_lock lock(mutex_);
  while (true) {
    to_read_.wait(lock, [&] { return ends_ || refresh_ || !reads_.empty(); });
    if (ends_) return;
    if (reads_.empty()) {
      refresh_ = false;
      lock.unlock();
      try {
        store_.refresh();
      } catch (const std::exception&) {  // no memory: it knows less
      }
      lock.lock();
      continue;
    }
    std::list<ReadJob> taken;
    taken.splice(taken.end(), reads_, reads_.begin());
    lock.unlock();
    try {
      ReadJob& job = taken.front();
      std::vector<store::BlockKey> keys;
      for (const StoredBlock& block : job.blocks) {
        if (block.group == 0) keys.push_back(block.key);
      }
      store_.will_need(keys);
      const std::uint32_t size = store_.config().format.block_size;
      for (StoredBlock& block : job.blocks) {
        const auto tokens = std::span(*job.tokens).subspan(std::size_t{block.index} * size, size);
        block.found = store_.read(block.key, block.group, tokens, {block.buffer, store_.config().format.block_bytes});
      }
    } catch (const std::exception&) {  // no memory: the rest is not found
    }
    lock.lock();
    done_.splice(done_.end(), taken);
    lock.unlock();
    tell_();
    lock.lock();
  }
}

void StoreWorker::run_writes() noexcept {
  std::unique_lock lock(mutex_);
  while (true) {
    to_write_.wait(lock, [&] { return ends_ || !writes_.empty(); });
    if (ends_) return;
    std::list<WriteJob> taken;
    taken.splice(taken.end(), writes_, writes_.begin());
    writing_ = true;
    lock.unlock();
    const WriteJob& job = taken.front();
    try {
      store_.write(job.key, job.group, job.tokens, {job.buffer, store_.config().format.block_bytes});
    } catch (const std::exception&) {  // no memory: it is not there
    }
    lock.lock();
    writing_ = false;
    written_.push_back(job.buffer);
    if (writes_.empty()) idle_.notify_all();
    lock.unlock();
    tell_();
    lock.lock();
  }
}

}  // namespace pagedcore
