#include "engine/swap_store.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <exception>

#include "base/text.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore {
namespace {

constexpr std::size_t kBounceBlocks = 8;

class Stopwatch {
 public:
  double seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

/// A moving average that forgets half in about five operations.
void average(double& value, double seconds, std::size_t blocks) {
  const double now = seconds / static_cast<double>(blocks);
  value = value == 0.0 ? now : 0.87 * value + 0.13 * now;
}

}  // namespace

std::uint64_t checksum(std::span<const std::byte> bytes) noexcept {
  constexpr std::uint64_t kPrime = 0x9e3779b97f4a7c15u;
  std::array<std::uint64_t, 4> lanes{1, 2, 3, 4};
  const auto step = [](std::uint64_t lane, std::uint64_t word) { return std::rotl((lane ^ word) * kPrime, 29); };
  std::size_t at = 0;
  for (; at + 32 <= bytes.size(); at += 32) {
    std::array<std::uint64_t, 4> words;
    std::memcpy(words.data(), bytes.data() + at, 32);
    for (std::size_t i = 0; i < 4; ++i) lanes[i] = step(lanes[i], words[i]);
  }
  std::array<std::uint64_t, 4> rest{};
  if (at < bytes.size()) std::memcpy(rest.data(), bytes.data() + at, bytes.size() - at);
  std::uint64_t sum = bytes.size();
  for (std::size_t i = 0; i < 4; ++i) sum = step(sum, step(lanes[i], rest[i]));
  return sum;
}

SwapStore::SwapStore(const SwapConfig& config, std::unique_ptr<SwapFile> file)
    : config_(config), file_(std::move(file)), checksums_(config.file_slots) {
  if (config.file_slots > 0 && file_ == nullptr) throw InvalidArgument("a swap space with file slots needs a file");
  if (config.file_slots > 0) bounce_.resize(kBounceBlocks * config.block_bytes);
  const std::size_t bytes = config.host_slots * config.block_bytes;
  if (bytes == 0) return;
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) {
    throw OutOfMemory(str("a swap space of ", config.host_slots, " blocks x ", config.block_bytes, " = ", bytes,
                          " bytes of host memory: ", std::strerror(errno), "; lower swap_bytes"));
  }
  host_ = static_cast<std::byte*>(memory);
#if defined(MADV_HUGEPAGE)
  (void)madvise(memory, bytes, MADV_HUGEPAGE);  // fewer page faults on first use
#endif
}

SwapStore::~SwapStore() {
  if (host_ != nullptr) munmap(host_, config_.host_slots * config_.block_bytes);
}

void SwapStore::fail(std::uint8_t& failed, const char* reason) noexcept {
  failed = 1;
  ++counters_.errors;
  try {
    last_error_ = reason;
  } catch (const std::exception&) {
    last_error_.clear();
  }
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
    for (std::size_t i = 0; i < piece.size(); ++i) {
      blocks_.push_back(moves[piece[i]].block);
      places_.push_back(bounce_.data() + i * config_.block_bytes);
    }
    backend.swap_out(kv, blocks_, places_);
    backend.synchronize();
    for (std::size_t i = 0; i < piece.size(); ++i) {
      const SwapSlot slot = moves[piece[i]].slot;
      const std::span<const std::byte> bytes(places_[i], config_.block_bytes);
      checksums_[raw(slot) - config_.host_slots] = checksum(bytes);
      try {
        file_->write(offset(slot), bytes);
        counters_.file_bytes_out += bytes.size();
      } catch (const std::exception& error) {
        fail(failed[piece[i]], error.what());
      }
    }
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
  blocks_.clear();
  sources_.clear();
  const auto flush = [&] {
    if (blocks_.empty()) return;
    backend.swap_in(kv, blocks_, sources_);
    backend.synchronize();
    blocks_.clear();
    sources_.clear();
  };
  for (std::size_t i = 0; i < moves.size(); ++i) {
    const SwapSlot slot = moves[i].slot;
    if (!in_file(slot)) continue;
    const std::span<std::byte> bytes(bounce_.data() + blocks_.size() * config_.block_bytes, config_.block_bytes);
    try {
      file_->read(offset(slot), bytes);
      if (checksum(bytes) != checksums_[raw(slot) - config_.host_slots]) {
        throw Corrupt(str("the swap file returns other bytes for slot ", raw(slot), " than were written"));
      }
    } catch (const std::exception& error) {
      fail(failed[i], error.what());
      continue;
    }
    counters_.file_bytes_in += bytes.size();
    blocks_.push_back(moves[i].block);
    sources_.push_back(bytes.data());
    if (blocks_.size() == kBounceBlocks) flush();
  }
  flush();
  if (moves.empty()) return;
  counters_.bytes_in += moves.size() * config_.block_bytes;
  counters_.seconds_in += watch.seconds();
  average(counters_.block_in, watch.seconds(), moves.size());
}

}  // namespace pagedcore
