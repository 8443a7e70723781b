#include "engine/swap_store.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <exception>

#include "base/checksum.hpp"
#include "base/text.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore {
namespace {

constexpr std::size_t kBounceBlocks = 8;

class Stopwatch {
 public:
  double seconds() const { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count(); }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

/// A moving average that forgets half in about five operations.
void average(double& value, double seconds, std::size_t blocks) {
  const double now = seconds / static_cast<double>(blocks);
  value = value == 0.0 ? now : 0.87 * value + 0.13 * now;
}

/// Why `work` failed; empty when it did not.
template <class Work>
std::string reason_of(const Work& work) {
  try {
    work();
    return {};
  } catch (const std::exception& error) {
    return error.what();
  }
}

}  // namespace

SwapStore::SwapStore(const SwapConfig& config, std::unique_ptr<SwapFile> file)
    : config_(config), file_(std::move(file)), checksums_(config.file_slots) {
  if (config.file_slots > 0 && file_ == nullptr)
    throw InvalidArgument("a swap space with swap slots in a file needs a file");
  if (config.file_slots > 0) bounce_.resize(kBounceBlocks * config.block_bytes);
  const std::size_t bytes = config.host_slots * config.block_bytes;
  if (bytes == 0) return;
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) {
    throw OutOfMemory(str("a swap space of ", config.host_slots, " blocks x ", config.block_bytes, " = ", bytes,
                          " bytes of host memory: ", std::strerror(errno), "; lower swap_space"));
  }
  host_ = static_cast<std::byte*>(memory);
#if defined(MADV_HUGEPAGE)
  (void)madvise(memory, bytes, MADV_HUGEPAGE);  // fewer page faults on first use
#endif
}

SwapStore::~SwapStore() {
  if (host_ != nullptr) munmap(host_, config_.host_slots * config_.block_bytes);
}

void SwapStore::take_note(const std::string& error, std::uint8_t& failed, std::uint64_t& bytes_moved) {
  if (error.empty()) {
    bytes_moved += config_.block_bytes;
    return;
  }
  failed = 1;
  ++counters_.errors;
  last_error_ = error;
}

void SwapStore::store(Backend& backend, const KvStorage& kv, std::span<const BlockSwap> moves,
                      std::span<std::uint8_t> failed) {
  const Stopwatch watch;
  std::ranges::fill(failed, std::uint8_t{0});
  blocks_.clear();
  places_.clear();
  for (const BlockSwap& move : moves) {
    if (in_file(move.slot)) continue;
    blocks_.push_back(move.block);
    places_.push_back(host(move.slot));
  }
  if (!blocks_.empty()) backend.swap_out(kv, blocks_, places_);
  std::vector<std::size_t> piece;  // moves to the file that share the bounce buffer
  const auto flush = [&] {
    if (piece.empty()) return;
    blocks_.clear();
    places_.clear();
    sources_.clear();
    for (std::size_t i = 0; i < piece.size(); ++i) {
      blocks_.push_back(moves[piece[i]].block);
      places_.push_back(bounce_.data() + i * config_.block_bytes);
      sources_.push_back(kv.host_view(moves[piece[i]].block));
    }
    if (sources_.front() == nullptr) {  // else they are written from where they are
      backend.swap_out(kv, blocks_, places_);
      sources_.assign(places_.begin(), places_.end());
    }
    backend.synchronize();
    errors_.assign(piece.size(), {});
    backend.host_parallel(static_cast<std::int64_t>(piece.size()), [&](std::int64_t n) {
      const auto i = static_cast<std::size_t>(n);
      const SwapSlot slot = moves[piece[i]].slot;
      const std::span<const std::byte> bytes(sources_[i], config_.block_bytes);
      checksums_[raw(slot) - config_.host_slots] = checksum(bytes);
      errors_[i] = reason_of([&] { file_->write(offset(slot), bytes); });
    });
    for (std::size_t i = 0; i < piece.size(); ++i) take_note(errors_[i], failed[piece[i]], counters_.file_bytes_out);
    piece.clear();
  };
  for (std::size_t i = 0; i < moves.size(); ++i) {
    if (!in_file(moves[i].slot)) continue;
    piece.push_back(i);
    if (piece.size() == kBounceBlocks) flush();
  }
  flush();
  backend.synchronize();
  if (moves.empty()) return;
  counters_.bytes_out += moves.size() * config_.block_bytes;
  counters_.seconds_out += watch.seconds();
  average(counters_.block_out, watch.seconds(), moves.size());
}

void SwapStore::load(Backend& backend, KvStorage& kv, std::span<const BlockSwap> moves,
                     std::span<std::uint8_t> failed) {
  const Stopwatch watch;
  std::ranges::fill(failed, std::uint8_t{0});
  blocks_.clear();
  sources_.clear();
  for (const BlockSwap& move : moves) {
    if (in_file(move.slot)) continue;
    blocks_.push_back(move.block);
    sources_.push_back(host(move.slot));
  }
  if (!blocks_.empty()) backend.swap_in(kv, blocks_, sources_);
  backend.synchronize();
  std::vector<std::size_t> piece;  // moves from the file that share the bounce buffer
  const auto flush = [&] {
    if (piece.empty()) return;
    errors_.assign(piece.size(), {});
    backend.host_parallel(static_cast<std::int64_t>(piece.size()), [&](std::int64_t n) {
      const auto i = static_cast<std::size_t>(n);
      const SwapSlot slot = moves[piece[i]].slot;
      const std::span<std::byte> bytes(bounce_.data() + i * config_.block_bytes, config_.block_bytes);
      errors_[i] = reason_of([&] {
        file_->read(offset(slot), bytes);
        if (checksum(bytes) == checksums_[raw(slot) - config_.host_slots]) return;
        throw Corrupt(str("the swap file returns other bytes for swap slot ", raw(slot), " than were written"));
      });
    });
    blocks_.clear();
    sources_.clear();
    for (std::size_t i = 0; i < piece.size(); ++i) {
      take_note(errors_[i], failed[piece[i]], counters_.file_bytes_in);
      if (!errors_[i].empty()) continue;  // nothing that is not trusted gets in
      blocks_.push_back(moves[piece[i]].block);
      sources_.push_back(bounce_.data() + i * config_.block_bytes);
    }
    if (!blocks_.empty()) backend.swap_in(kv, blocks_, sources_);
    backend.synchronize();
    piece.clear();
  };
  for (std::size_t i = 0; i < moves.size(); ++i) {
    if (!in_file(moves[i].slot)) continue;
    piece.push_back(i);
    if (piece.size() == kBounceBlocks) flush();
  }
  flush();
  if (moves.empty()) return;
  counters_.bytes_in += moves.size() * config_.block_bytes;
  counters_.seconds_in += watch.seconds();
  average(counters_.block_in, watch.seconds(), moves.size());
}

}  // namespace pagedcore
