// What ranks say to one another: bytes. A communicator moves them and never adds; a sum is its caller's, in the
// caller's order, so that every transport gives the same bits.
#pragma once

#include <chrono>
#include <cstddef>
#include <span>
#include <string>
#include <string_view>

#include "pagedcore/error.hpp"

namespace pagedcore::comm {

/// A rank has died, left, or kept others waiting past the deadline. `rank()` is the one that is lost.
class LostPeer : public Aborted {
 public:
  LostPeer(int rank, const std::string& what) : Aborted(what), rank_(rank) {}
  ~LostPeer() override;
  int rank() const noexcept { return rank_; }

 private:
  int rank_;
};

/// What all ranks of a group have alike.
struct Limits {
  /// The longest that a rank may keep others waiting in a call: what it computes between two calls included.
  std::chrono::milliseconds deadline{10'000};
  /// How long a call spins before it sleeps. 0 where ranks share CPUs: spinning would hold up the others.
  std::chrono::microseconds spin{30};
};

inline constexpr int kMostRanks = 256;

/// How long a rank waits for the root of a broadcast.
enum class Patience {
  deadline,  // as in every other call
  idle,      // as long as the root lives: it has nothing to say while there is nothing to do
};

/// One rank's end of a group. All ranks make the same calls in the same order. One thread at a time calls; abort() may
/// be called by any thread at any time. No call allocates unless it fails.
///
/// A call that fails throws, at every rank, in this call or in its next:
///   LostPeer         a rank died, left, or did not arrive within the deadline;
///   Aborted          a rank called abort(): the message has its number and reason;
///   Corrupt          ranks made different calls, or expected other sizes than were sent.
/// The group is of no use from then on: every later call throws the same. Received memory may have been written in
/// part. Memory that was sent is not read any more once the call has returned or thrown.
class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual int rank() const noexcept = 0;
  virtual int size() const noexcept = 0;

  /// send[r] goes to rank r; receive[r] is filled with what rank r sends here, whose size it must have. size() spans
  /// each; empty ones move nothing. receive[rank()] is send[rank()] itself or does not overlap it; other received
  /// memory overlaps nothing. To gather at one rank, all others receive nothing.
  virtual void all_to_all(std::span<const std::span<const std::byte>> send,
                          std::span<const std::span<std::byte>> receive) = 0;

  /// receive[r] is filled with what rank r sends; sizes may differ by rank. receive[rank()] is `send` itself or does
  /// not overlap it.
  virtual void all_gather(std::span<const std::byte> send, std::span<const std::span<std::byte>> receive) = 0;

  /// The root's `bytes` to the begin of everybody's. Returns how many the root sent: bytes.size() at the root, at most
  /// bytes.size() at every other rank. The root may return before the others have come.
  virtual std::size_t broadcast(std::span<std::byte> bytes, int root, Patience patience = Patience::deadline) = 0;

  /// Returns once every rank has called it.
  virtual void barrier() = 0;

  /// Ends the group: every call that waits throws, and every later one. The first reason stays. Never blocks on a peer.
  virtual void abort(std::string_view why) noexcept = 0;
};

}  // namespace pagedcore::comm
