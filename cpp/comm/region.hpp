// The memory that the ranks of a machine share, and how they wait for one another in it. It is zero when it is made,
// and that is its initial state. Nothing in it is locked: a rank may be killed at any moment.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "comm/calls.hpp"
#include "comm/sockets.hpp"

namespace pagedcore::comm {

/// What a rank says of a call: how many bytes it has for each rank, and where they are if not in its stage.
struct Offer {
  static constexpr std::uint64_t kStaged = ~std::uint64_t{0};
  std::uint64_t bytes = 0;
  std::uint64_t at = kStaged;  // an offset into the region
};
struct Table {
  std::uint64_t place = 0;         // Place::word()
  std::uint64_t history = 0;       // a digest of this call and all before it
  std::uint64_t first_piece = 0;   // how many pieces the rank had staged before the call
  std::uint64_t pieces = 0;        // how many it stages in the call
  std::uint64_t piece_bytes = 0;   // the largest
  std::uint64_t piece_stride = 0;  // between two ranks' parts of a piece: 0 when all read the same
  Offer offers[kMostRanks];
};

struct Desk {                                     // one rank's: it alone writes, but for the bell
  alignas(64) std::atomic<std::uint64_t> place;   // Place::word() of its call
  alignas(64) std::atomic<std::uint64_t> left;    // the number of the last call that it has left
  alignas(64) std::atomic<std::uint64_t> staged;  // pieces, of all calls
  alignas(64) std::atomic<std::uint32_t> bell;    // a futex: rung by others while it sleeps
  std::atomic<std::uint32_t> sleeps;
  alignas(64) std::atomic<std::uint64_t> taken[kMostRanks];  // pieces of each rank that it needs no more
  alignas(64) Table tables[2];  // of calls with odd and even numbers: others may be one call behind
};
static_assert(std::atomic<std::uint64_t>::is_always_lock_free && std::atomic<std::uint32_t>::is_always_lock_free);

/// A stage has two halves; one fills while the other is read.
inline constexpr std::size_t kHalfStage = 1 << 20;
/// What a rank may ask for with memory(). Pages that nobody touched take no memory.
inline constexpr std::size_t kHeap = std::size_t{256} << 20;

class Region {
 public:
  /// Rank 0 makes it; the others map what they were sent. Throw Io.
  explicit Region(int ranks);
  Region(int ranks, Socket memory);
  ~Region();
  Region(const Region&) = delete;
  Region& operator=(const Region&) = delete;

  int fd() const noexcept { return memory_.fd(); }
  Desk& desk(int rank) const noexcept { return reinterpret_cast<Desk*>(base_)[rank]; }
  std::byte* stage(int rank, int half) const noexcept {
    return base_ + stages_ + (static_cast<std::size_t>(rank) * 2 + static_cast<std::size_t>(half)) * kHalfStage;
  }
  std::byte* heap(int rank) const noexcept { return base_ + heaps_ + static_cast<std::size_t>(rank) * kHeap; }
  std::byte* at(std::uint64_t offset) const noexcept { return base_ + offset; }
  /// Where the bytes lie in the region, Offer::kStaged if they do not.
  std::uint64_t offset_of(std::span<const std::byte> bytes) const noexcept;
  std::size_t size() const noexcept { return size_; }

 private:
  void map(int ranks);
  Socket memory_;
  std::size_t stages_ = 0, heaps_ = 0, size_ = 0;
  std::byte* base_ = nullptr;
};

/// Sleeps while *word is `seen`, until `end`; the word lies in memory that processes share.
void futex_wait(std::atomic<std::uint32_t>& word, std::uint32_t seen, Clock::time_point end) noexcept;
void futex_wake(std::atomic<std::uint32_t>& word) noexcept;

}  // namespace pagedcore::comm
