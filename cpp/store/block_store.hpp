// Blocks in a directory, found by key, also after a restart: what is in memory is an index, which is read back from the
// segments' headers. Least recently used segments go when the size limit is reached.
//
// Several engines, of one model or of several, may share a directory: each writes segments of its own, which it holds
// locked, and reads those of its identity. Nothing that a file system does, or other programs do to the files, ends
// more than the call: reads and writes then say no, and last_error() says why.
//
// Thread-safe. find_chain() never touches the disk.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "store/segment.hpp"

namespace pagedcore::store {

struct StoreConfig {
  std::string directory;
  std::uint64_t size = 0;  // bytes that all segments in the directory may take
  Identity identity;
  BlockFormat format;
  std::vector<std::uint32_t> windows{};  // [groups], 0: full context
};

struct StoreCounts {
  std::uint64_t blocks = 0;         // that can be found
  std::uint64_t bytes = 0;          // of all segments in the directory, as of the last look at it
  std::uint64_t bytes_read = 0;     // of blocks that verified
  std::uint64_t bytes_written = 0;  // of blocks
  std::uint64_t errors = 0;         // blocks that could not be written, read or trusted
  std::uint64_t evicted = 0;        // blocks
};

class BlockStore {
 public:
  /// Opens or makes the directory and reads what there is. Throws Io as SegmentFiles, and InvalidArgument for a size
  /// that holds no block. A directory that may be read only is read.
  explicit BlockStore(StoreConfig config);

  const StoreConfig& config() const noexcept { return config_; }

  /// The most leading tokens, whole blocks, that could be imported: all blocks of group 0 are there, and of every other
  /// group those that its window reaches. At most those of `tokens`.
  std::uint32_t find_chain(const BlockKey& root, std::span<const TokenId> tokens) const;
  bool has(const BlockKey& key, std::uint32_t group) const;
  /// Asks for these to be read ahead, as far as they lie behind each other.
  void will_need(std::span<const BlockKey> keys) const;
  /// False where it is not there, or is not what was written: then it is forgotten.
  bool read(const BlockKey& key, std::uint32_t group, std::span<const TokenId> tokens, std::span<std::byte> out);
  /// True when the block is there, now or before. One thread at a time writes.
  bool write(const BlockKey& key, std::uint32_t group, std::span<const TokenId> tokens,
             std::span<const std::byte> bytes);
  /// Looks for what other engines have written and removed, and tells those who evict what was of use.
  void refresh();
  /// Seconds since the last refresh().
  double staleness() const noexcept;

  StoreCounts counts() const;
  std::string last_error() const;

 private:
  struct Place {
    std::shared_ptr<Segment> segment;
    std::uint32_t slot = 0;
  };
  struct KeyHash {
    std::size_t operator()(const std::pair<BlockKey, std::uint32_t>& key) const noexcept;
  };
  struct Known {
    std::shared_ptr<Segment> segment;
    double touched = 0.0;       // on the steady clock; the last time that others were told
    mutable bool used = false;  // since then
  };
  using Index = std::unordered_map<std::pair<BlockKey, std::uint32_t>, Place, KeyHash>;

  void read_directory(const std::vector<FileInfo>& files);
  void enter(const std::shared_ptr<Segment>& segment, std::span<const SlotEntry> entries);
  void forget(const std::string& name);
  void tell_use();
  bool ready_to_write();
  void adopt();
  void begin(std::shared_ptr<Segment> segment, std::span<const SlotEntry> entries);
  void end_segment() noexcept;
  bool make_room(std::uint64_t bytes);
  void note(const std::string& error);

  const StoreConfig config_;
  const SegmentFiles files_;
  std::uint32_t slots_ = 1;  // of new segments

  mutable std::mutex mutex_;  // guards what follows, held for no call that may wait for a disk
  Index index_;
  std::map<std::string, Known> segments_;
  StoreCounts counts_;
  std::string last_error_;
  std::string active_name_;  // of the segment that the writer appends to; nobody else looks into its slots
  std::atomic<double> refreshed_{0.0};

  std::mutex looking_;  // one thread at a time reads the directory, and the slots of segments that nobody here writes

  // The writer's.
  std::shared_ptr<Segment> active_;
  std::uint64_t directory_bytes_ = 0;  // estimated between looks
  std::uint32_t since_look_ = 0;       // blocks written
  double retry_at_ = 0.0;              // after a failure
  double pause_ = 0.0;
  bool may_adopt_ = true;
};

}  // namespace pagedcore::store
