#include "store/block_store.hpp"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <exception>
#include <random>
#include <set>
#include <utility>

#include "base/text.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore::store {
namespace {

constexpr std::uint64_t kFilesPerStore = 64;
constexpr std::uint64_t kMostSegmentBytes = std::uint64_t{1} << 30;
constexpr double kTouchEvery = 1.0;  // seconds
constexpr double kFirstPause = 1.0;  // seconds without a try after a write that failed, doubled each time
constexpr double kLongestPause = 60.0;
constexpr std::uint32_t kBlocksPerLook = 256;  // written between two looks at the directory, or a segment of them

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

std::string hex(std::uint64_t value) {
  constexpr std::string_view digits = "0123456789abcdef";
  std::string text(16, '0');
  for (std::size_t i = 16; i-- > 0; value >>= 4) text[i] = digits[value & 15];
  return text;
}

/// All segments of one identity begin alike, so that those of others are not opened.
std::string prefix_of(const Identity& identity) {
  std::uint64_t first = 0;
  std::memcpy(&first, identity.digest.data(), sizeof(first));
  return hex(first) + '-';
}

std::string new_name(const Identity& identity) {
  std::random_device random;
  return prefix_of(identity) + hex(std::uint64_t{random()} << 32 | random()) + ".kv";
}

}  // namespace

std::size_t BlockStore::KeyHash::operator()(const std::pair<BlockKey, std::uint32_t>& key) const noexcept {
  std::size_t hash = 0;
  std::memcpy(&hash, key.first.data(), sizeof(hash));
  return hash + key.second;
}

BlockStore::BlockStore(StoreConfig config) : config_(std::move(config)), files_(config_.directory) {
  const SegmentLayout one{config_.format, 1};
  const std::uint64_t least = one.block_at(1), slot = config_.format.block_bytes + header_bytes(config_.format);
  if (config_.size < least)
    throw InvalidArgument(str("kv_store_size = ", config_.size, " bytes holds no block: one takes ", least,
                              " bytes; say 10GiB for so many gibibytes"));
  const std::uint64_t bytes = std::min(config_.size / kFilesPerStore, kMostSegmentBytes);
  slots_ = static_cast<std::uint32_t>(std::clamp<std::uint64_t>(bytes / slot, 1, 1u << 16));
  while (slots_ > 1 && SegmentLayout{config_.format, slots_}.block_at(slots_) > config_.size) --slots_;
  refresh();
}

double BlockStore::staleness() const noexcept { return now() - refreshed_.load(std::memory_order_relaxed); }

StoreCounts BlockStore::counts() const {
  const std::lock_guard lock(mutex_);
  StoreCounts counts = counts_;
  counts.blocks = index_.size();
  return counts;
}

std::string BlockStore::last_error() const {
  const std::lock_guard lock(mutex_);
  return last_error_;
}

void BlockStore::note(const std::string& error) {
  const std::lock_guard lock(mutex_);
  ++counts_.errors;
  last_error_ = error;
}

bool BlockStore::has(const BlockKey& key, std::uint32_t group) const {
  const std::lock_guard lock(mutex_);
  const auto found = index_.find({key, group});
  if (found == index_.end()) return false;
  if (const auto known = segments_.find(found->second.segment->name()); known != segments_.end())
    known->second.used = true;
  return true;
}

std::uint32_t BlockStore::find_chain(const BlockKey& root, std::span<const TokenId> tokens) const {
  const std::uint32_t block_size = config_.format.block_size, groups = config_.format.groups;
  std::vector<BlockKey> keys;
  BlockKey key = root;
  while ((keys.size() + 1) * block_size <= tokens.size()) {
    key = next_key(key, tokens.subspan(keys.size() * block_size, block_size));
    if (!has(key, 0)) break;
    keys.push_back(key);
  }
  auto length = static_cast<std::uint32_t>(keys.size());
  // As in the cache: of a group with a window its blocks may be missing one by one.
  for (bool fits = groups == 1; !fits && length > 0;) {
    fits = true;
    for (std::uint32_t group = 1; group < groups && fits; ++group) {
      const std::uint32_t window = config_.windows[group];
      const std::uint32_t end = length * block_size;
      const std::uint32_t first = window == 0 || end < window ? 0 : (end - window + 1) / block_size;
      for (std::uint32_t i = length; i-- > first && fits;) {
        if (has(keys[i], group)) continue;
        length = i;
        fits = false;
      }
    }
  }
  return length * block_size;
}

void BlockStore::will_need(std::span<const BlockKey> keys) const {
  for (std::size_t i = 0; i < keys.size();) {
    std::shared_ptr<Segment> segment;
    std::uint32_t first = 0, count = 0;
    {
      const std::lock_guard lock(mutex_);
      for (; i < keys.size(); ++i) {
        const auto found = index_.find({keys[i], 0});
        if (found == index_.end()) break;
        const Place& place = found->second;
        if (count > 0 && (place.segment != segment || place.slot != first + count)) break;
        if (count++ == 0) {
          segment = place.segment;
          first = place.slot;
        }
      }
    }
    if (count == 0) return;
    segment->will_need(first, count);
  }
}

bool BlockStore::read(const BlockKey& key, std::uint32_t group, std::span<const TokenId> tokens,
                      std::span<std::byte> out) {
  Place place;
  {
    const std::lock_guard lock(mutex_);
    const auto found = index_.find({key, group});
    if (found == index_.end()) return false;
    place = found->second;
    if (const auto known = segments_.find(place.segment->name()); known != segments_.end()) known->second.used = true;
  }
  try {
    place.segment->read(place.slot, key, group, tokens, out);
    const std::lock_guard lock(mutex_);
    counts_.bytes_read += out.size();
    return true;
  } catch (const Error& error) {
    note(error.what());
    const std::lock_guard lock(mutex_);
    const auto found = index_.find({key, group});
    if (found != index_.end() && found->second.segment == place.segment && found->second.slot == place.slot)
      index_.erase(found);
    return false;
  }
}

void BlockStore::enter(const std::shared_ptr<Segment>& segment, std::span<const SlotEntry> entries) {
  const std::lock_guard lock(mutex_);
  for (const SlotEntry& entry : entries) index_[{entry.key, entry.group}] = {segment, entry.slot};
  segments_.try_emplace(segment->name()).first->second.segment = segment;
}

/// A segment that is gone: what was in it is not found any more. Reads that go on have its descriptor.
void BlockStore::forget(const std::string& name) {
  const std::lock_guard lock(mutex_);
  if (segments_.erase(name) == 0) return;
  counts_.evicted += std::erase_if(index_, [&](const auto& entry) { return entry.second.segment->name() == name; });
}

void BlockStore::read_directory(const std::vector<FileInfo>& files) {
  const std::string prefix = prefix_of(config_.identity);
  std::set<std::string> there;
  for (const FileInfo& file : files) {
    if (!file.name.starts_with(prefix)) continue;
    there.insert(file.name);
    std::shared_ptr<Segment> segment;
    bool is_new = false;
    {
      const std::lock_guard lock(mutex_);
      if (file.name == active_name_) continue;
      if (const auto known = segments_.find(file.name); known != segments_.end()) segment = known->second.segment;
    }
    try {
      if (!segment) {
        Descriptor descriptor = files_.open(file.name, false);
        if (!descriptor || file.bytes < kHeadBytes) continue;
        segment = std::make_shared<Segment>(file.name, std::move(descriptor), config_.identity, config_.format);
        is_new = true;
      } else if (segment->is_full()) {
        continue;
      }
      const std::vector<SlotEntry> found = segment->scan();
      if (is_new || !found.empty()) enter(segment, found);
    } catch (const Error& error) {  // damaged, or written by nobody who goes on: it ages out
      if (is_new) note(error.what());
    }
  }
  std::vector<std::string> gone;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [name, known] : segments_) {
      if (!there.contains(name)) gone.push_back(name);
    }
  }
  for (const std::string& name : gone) forget(name);
}

void BlockStore::refresh() {
  const std::lock_guard looking(looking_);
  tell_use();
  const std::vector<FileInfo> files = files_.list();
  read_directory(files);
  std::uint64_t bytes = 0;
  for (const FileInfo& file : files) bytes += file.bytes;
  refreshed_.store(now(), std::memory_order_relaxed);
  const std::lock_guard lock(mutex_);
  counts_.bytes = bytes;
}

void BlockStore::tell_use() {
  std::vector<std::shared_ptr<Segment>> used;
  {
    const std::lock_guard lock(mutex_);
    for (auto& [name, known] : segments_) {
      if (!known.used || now() - known.touched < kTouchEvery) continue;
      known.used = false;
      known.touched = now();
      used.push_back(known.segment);
    }
  }
  for (const auto& segment : used) segment->touch();
}

/// Makes sure that so many bytes more stay below the limit. False when everything else is being written by others.
bool BlockStore::make_room(std::uint64_t bytes) {
  if (since_look_ < std::min(kBlocksPerLook, slots_) && directory_bytes_ + bytes <= config_.size &&
      directory_bytes_ > 0)
    return true;
  const std::lock_guard looking(looking_);
  tell_use();
  std::vector<FileInfo> files = files_.list();
  std::uint64_t total = 0;
  for (const FileInfo& file : files) total += file.bytes;
  std::ranges::sort(files, {}, &FileInfo::used);
  for (const FileInfo& file : files) {
    if (total + bytes <= config_.size) break;
    if (active_ && file.name == active_->name()) continue;
    if (!files_.remove(file.name)) continue;
    total -= file.bytes;
    forget(file.name);
  }
  directory_bytes_ = total;
  since_look_ = 0;
  const std::lock_guard lock(mutex_);
  counts_.bytes = total;
  return total + bytes <= config_.size;
}

/// The writer's segment from now on.
void BlockStore::begin(std::shared_ptr<Segment> segment, std::span<const SlotEntry> entries) {
  {
    const std::lock_guard lock(mutex_);
    active_name_ = segment->name();
  }
  enter(segment, entries);
  active_ = std::move(segment);
}

void BlockStore::end_segment() noexcept {
  if (!active_) return;
  active_->unlock();
  active_.reset();
  const std::lock_guard lock(mutex_);
  active_name_.clear();
}

/// After a restart the writer goes on with a segment that has room: few files, not one more each time.
void BlockStore::adopt() {
  const std::lock_guard looking(looking_);
  std::vector<std::string> open;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [name, known] : segments_) {
      if (!known.segment->is_full() && known.segment->layout().slots == slots_) open.push_back(name);
    }
  }
  for (const std::string& name : open) {
    Descriptor file = files_.open(name, true);
    if (!file || !SegmentFiles::lock(file) || !files_.exists(name)) continue;
    // A new object for the same file: those who read through the one that was found are not disturbed.
    auto taken = std::make_shared<Segment>(name, std::move(file), config_.identity, config_.format);
    const std::vector<SlotEntry> entries = taken->scan();
    if (taken->is_full()) continue;
    return begin(std::move(taken), entries);
  }
}

/// Whether there is a segment with a free slot to write to.
bool BlockStore::ready_to_write() {
  if (active_ && active_->is_full()) end_segment();
  if (!active_ && std::exchange(may_adopt_, false)) adopt();
  const SegmentLayout layout{config_.format, slots_};
  const bool is_new = !active_;
  if (!make_room(config_.format.block_bytes + (is_new ? layout.block_at(0) : 0))) {
    if (is_new) {
      note(str("kv_store ", config_.directory, ": no room below kv_store_size = ", config_.size,
               " bytes: what is there is being written by other engines; raise it"));
      return false;
    }
    end_segment();  // what this engine has written may be all that there is
    return ready_to_write();
  }
  if (!is_new) return true;
  const std::string name = new_name(config_.identity);
  std::string why;
  Descriptor file = files_.create(name, why);
  if (!file) {
    note(why);
    return false;
  }
  try {
    begin(std::make_shared<Segment>(name, std::move(file), config_.identity, layout), {});
  } catch (const Io& error) {
    note(error.what());
    static_cast<void>(files_.remove(name));
    return false;
  }
  directory_bytes_ += layout.block_at(0);
  return true;
}

bool BlockStore::write(const BlockKey& key, std::uint32_t group, std::span<const TokenId> tokens,
                       std::span<const std::byte> bytes) {
  if (has(key, group)) return true;
  if (now() < retry_at_) return false;
  bool written = false;
  try {
    if (ready_to_write()) {
      const std::uint32_t slot = active_->append(key, group, tokens, bytes);
      const SlotEntry entry{key, group, slot};
      enter(active_, std::span(&entry, 1));
      directory_bytes_ += bytes.size();
      ++since_look_;
      written = true;
    }
  } catch (const Error& error) {
    note(error.what());
    end_segment();
    directory_bytes_ = 0;  // look again
  }
  pause_ = written ? 0.0 : std::clamp(2 * pause_, kFirstPause, kLongestPause);
  retry_at_ = written ? 0.0 : now() + pause_;
  if (!written) return false;
  const std::lock_guard lock(mutex_);
  counts_.bytes_written += bytes.size();
  counts_.bytes = directory_bytes_;
  return true;
}

}  // namespace pagedcore::store
