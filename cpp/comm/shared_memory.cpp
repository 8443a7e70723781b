#include "comm/shared_memory.hpp"

#include <algorithm>
#include <cstring>
#include <vector>

#include "base/text.hpp"
#include "base/wait_point.hpp"
#include "comm/failure.hpp"
#include "comm/region.hpp"
#include "comm/watch.hpp"
#include "pagedcore/error.hpp"

// A rank that calls writes on its desk what it has for whom, then bumps its place in the order of calls. Bytes go
// through its stage, piece by piece: it fills a half while the others read the other one, and all ranks do their n-th
// piece before their next, so that none waits for another in a circle. Bytes that lie in the region already are read
// where they are. A rank that is a call ahead leaves the tables of the last one alone.

namespace pagedcore::comm {
namespace {

constexpr std::size_t kMostPiece = std::size_t{128} << 10;  // stays in a core's cache between the two copies

class SharedMemoryCommunicator final : public SharedMemoryGroup {
 public:
  SharedMemoryCommunicator(std::unique_ptr<Region> region, Links links, const Limits& limits)
      : limits_(limits),
        rank_(links.rank),
        ranks_(links.ranks),
        region_(std::move(region)),
        desk_(region_->desk(rank_)),
        reads_(static_cast<std::size_t>(ranks_)),
        watch_(rank_, std::move(links.control), limits, [this] { ring(desk_); }) {}

  int rank() const noexcept override { return rank_; }
  int size() const noexcept override { return ranks_; }

  void all_to_all(SendSpans send, ReceiveSpans receive) override {
    check_all_to_all(*this, send, receive);
    begin({number_ + 1, Call::all_to_all, 0}, send, false);
    exchange(send, receive);
  }

  void all_gather(std::span<const std::byte> send, ReceiveSpans receive) override {
    check_all_gather(*this, send, receive);
    begin({number_ + 1, Call::all_gather, 0}, {&send, 1}, true);
    exchange({&send, 1}, receive);
  }

  std::size_t broadcast(std::span<std::byte> bytes, int root, Patience patience) override {
    check_root(*this, root);
    const std::span<const std::byte> send = bytes;
    begin({number_ + 1, Call::broadcast, root}, {&send, root == rank_ ? 1u : 0u}, true);
    if (root == rank_) {
      for (std::uint64_t piece = 0; piece < table().pieces; ++piece) stage({&send, 1}, piece);
      leave();
      wait_for_readers();
      return bytes.size();
    }
    wait_until_there(root, patience);
    Read& read = open(root, bytes, false);
    for (std::uint64_t piece = 0; !read.done; ++piece) take(root, read, bytes, piece);
    leave();
    return read.bytes;
  }

  void barrier() override {
    begin({number_ + 1, Call::barrier, 0}, {}, true);
    for_others([&](int peer) { wait_until_there(peer, Patience::deadline); });
    leave();
  }

  std::span<std::byte> memory(std::size_t bytes) override {
    if (bytes > kHeap - heap_used_)
      throw OutOfMemory(str(bytes, " bytes of memory to share with other ranks; of ", kHeap, " there are ",
                            kHeap - heap_used_, " left"));
    std::byte* const at = region_->heap(rank_) + heap_used_;
    heap_used_ += std::min((bytes + 63) / 64 * 64, kHeap - heap_used_);
    return {at, bytes};
  }

  void abort(std::string_view why) noexcept override {
    try {
      watch_.fail(aborted_by(rank_, why));
    } catch (const std::bad_alloc&) {
      watch_.fail({Failure::Kind::aborted, rank_, {}});
    }
  }

 private:
  struct Read {  // from one peer, in one call
    std::size_t bytes = 0;
    const std::byte* direct = nullptr;
    bool done = true;
  };

  template <class Visit>
  void for_others(const Visit& visit) {
    for (int step = 1; step < ranks_; ++step) visit((rank_ + step) % ranks_);
  }
  Table& table() noexcept { return desk_.tables[number_ & 1]; }
  const Table& table_of(int peer) const noexcept { return region_->desk(peer).tables[number_ & 1]; }

  static void ring(Desk& desk) noexcept {
    if (desk.sleeps.load() == 0) return;
    desk.bell.fetch_add(1);
    futex_wake(desk.bell);
  }
  void ring_others() noexcept {
    for_others([&](int peer) { ring(region_->desk(peer)); });
  }

  /// `send` has a span for each rank; one, when all read the same; or none.
  void begin(Place place, SendSpans send, bool same_for_all) {
    if (watch_.failed()) watch_.throw_failure();
    number_ = place.number;
    here_ = place;
    end_ = Clock::now() + limits_.deadline;
    if (number_ > 2)  // nobody reads this table of two calls ago any more
      for_others([&](int peer) {
        wait(peer, Patience::deadline, [&] { return region_->desk(peer).left.load() >= number_ - 2; });
      });
    Table& mine = table();
    mine.place = place.word();
    history_ = (history_ ^ place.word()) * 0x9e3779b97f4a7c15u;  // two who were both roots have not met yet
    mine.history = history_;
    mine.first_piece = desk_.staged.load();
    const std::size_t part = same_for_all ? kHalfStage : kHalfStage / static_cast<std::size_t>(ranks_) / 64 * 64;
    mine.piece_bytes = std::min(part, kMostPiece);
    mine.piece_stride = same_for_all ? 0 : part;
    mine.pieces = 0;
    for_others([&](int peer) {
      const auto at = static_cast<std::size_t>(peer);
      const std::span<const std::byte> bytes =
          send.empty() ? std::span<const std::byte>() : send[same_for_all ? 0 : at];
      const Offer offer{bytes.size(), region_->offset_of(bytes)};
      if (offer.at == Offer::kStaged) mine.pieces = std::max(mine.pieces, pieces_of(offer.bytes, mine.piece_bytes));
      mine.offers[at] = offer;
    });
    desk_.place.store(place.word());
    ring_others();
  }

  static std::uint64_t pieces_of(std::uint64_t bytes, std::uint64_t piece) { return (bytes + piece - 1) / piece; }

  void leave() {
    desk_.left.store(number_);
    ring_others();
  }

  void exchange(SendSpans send, ReceiveSpans receive) {
    const std::uint64_t pieces = table().pieces;
    bool all_read = ranks_ == 1;
    for (std::uint64_t piece = 0; piece < pieces || !all_read; ++piece) {
      if (piece < pieces) stage(send, piece);
      all_read = true;
      for_others([&](int peer) {
        const std::span<std::byte> to = receive[static_cast<std::size_t>(peer)];
        Read& read = reads_[static_cast<std::size_t>(peer)];
        if (piece == 0) {
          wait_until_there(peer, Patience::deadline);
          open(peer, to, true);
        }
        if (!read.done) take(peer, read, to, piece);
        all_read = all_read && read.done;
      });
    }
    const auto self = static_cast<std::size_t>(rank_);
    leave();
    copy_own(send[send.size() == 1 ? 0 : self], receive[self]);
    wait_for_readers();
  }

  /// What was read where it lies is the caller's again when a call returns.
  void wait_for_readers() {
    for_others([&](int peer) {
      if (table().offers[static_cast<std::size_t>(peer)].at != Offer::kStaged)
        wait(peer, Patience::deadline, [&] { return region_->desk(peer).left.load() >= number_; });
    });
  }

  /// Fills a half of the stage, once nobody needs what it held.
  void stage(SendSpans send, std::uint64_t piece) {
    const Table& mine = table();
    const std::uint64_t number = mine.first_piece + piece;  // over all calls
    if (number >= 2)
      for_others([&](int peer) {
        wait(peer, Patience::deadline, [&] { return region_->desk(peer).taken[rank_].load() >= number - 1; });
      });
    std::byte* const half = region_->stage(rank_, static_cast<int>(number & 1));
    const std::size_t from = piece * mine.piece_bytes;
    for (std::size_t to = 0; to < (mine.piece_stride == 0 ? 1 : static_cast<std::size_t>(ranks_)); ++to) {
      const std::size_t peer = mine.piece_stride == 0 ? static_cast<std::size_t>((rank_ + 1) % ranks_) : to;
      if (peer == static_cast<std::size_t>(rank_)) continue;
      const Offer& offer = mine.offers[peer];
      if (offer.at != Offer::kStaged || offer.bytes <= from) continue;
      const std::span<const std::byte> bytes = send[mine.piece_stride == 0 ? 0 : to];
      std::memcpy(half + to * mine.piece_stride, bytes.data() + from,
                  std::min<std::size_t>(mine.piece_bytes, offer.bytes - from));
    }
    desk_.staged.store(number + 1);
    ring_others();
  }

  /// What the peer, who is in this call, has for this rank.
  Read& open(int peer, std::span<std::byte> to, bool exactly) {
    const Table& its = table_of(peer);
    const Offer offer = its.offers[rank_];
    if (exactly ? offer.bytes != to.size() : offer.bytes > to.size())
      fail(other_size(peer, rank_, offer.bytes, to.size(), name_of(here_.call)));
    if (offer.at != Offer::kStaged && (offer.at > region_->size() || offer.bytes > region_->size() - offer.at))
      fail({Failure::Kind::corrupt, peer, str("rank ", peer, " offers memory outside of what the ranks share")});
    Read& read = reads_[static_cast<std::size_t>(peer)];
    read.bytes = static_cast<std::size_t>(offer.bytes);
    read.direct = offer.at == Offer::kStaged ? nullptr : region_->at(offer.at);
    read.done = read.bytes == 0 && its.pieces == 0;
    return read;
  }

  void take(int peer, Read& read, std::span<std::byte> to, std::uint64_t piece) {
    const Table& its = table_of(peer);
    const std::size_t from = piece * its.piece_bytes;
    bool last = true;
    if (read.direct != nullptr) {
      std::memcpy(to.data(), read.direct, read.bytes);
      desk_.bell.fetch_add(0);                      // a fence: what was read was read before the next line
      if (watch_.failed()) watch_.throw_failure();  // the sender may have thrown, and written there
    } else if (from < read.bytes) {
      const std::uint64_t number = its.first_piece + piece;
      wait(peer, Patience::deadline, [&] { return region_->desk(peer).staged.load() > number; });
      const std::byte* const half = region_->stage(peer, static_cast<int>(number & 1));
      const std::size_t size = std::min<std::size_t>(its.piece_bytes, read.bytes - from);
      std::memcpy(to.data() + from, half + static_cast<std::size_t>(rank_) * its.piece_stride, size);
      last = from + size == read.bytes;
      end_ = Clock::now() + limits_.deadline;  // it comes along
    }
    read.done = last;
    desk_.taken[peer].store(its.first_piece + (last ? its.pieces : piece + 1));
    ring(region_->desk(peer));
  }

  /// Until the peer is in this rank's call, or past it.
  void wait_until_there(int peer, Patience patience) {
    const Desk& desk = region_->desk(peer);
    wait(peer, patience, [&] { return Place::of(desk.place.load()).number >= number_; });
    const Table& table = table_of(peer);
    const Place its = Place::of(table.place);
    if (its.word() != here_.word() || table.history != history_)
      fail(other_call(peer, name_of(its.call), rank_, name_of(here_.call)));
  }

  template <class Ready>
  void wait(int peer, Patience patience, const Ready& ready) {
    const auto over = [&] { return ready() || watch_.failed() || watch_.gone(peer); };
    if (!spin(limits_.spin, over)) sleep(peer, patience, over);
    if (watch_.failed()) watch_.throw_failure();
    if (!ready()) fail(left_the_group(peer));
  }

  template <class Over>
  void sleep(int peer, Patience patience, const Over& over) {
    while (!over()) {
      desk_.sleeps.store(1);
      const std::uint32_t bell = desk_.bell.load();
      const bool idle = patience == Patience::idle;
      if (!over()) futex_wait(desk_.bell, bell, idle ? Clock::now() + std::chrono::hours(1) : end_);
      desk_.sleeps.store(0);
      if (!idle && !over() && Clock::now() >= end_)
        fail(lost_in_call(furthest_behind(peer), rank_, name_of(here_.call), limits_.deadline.count()));
    }
    if (patience == Patience::idle) end_ = Clock::now() + limits_.deadline;
  }

  /// Of two ranks that others wait for, the one that got less far is the one that is lost.
  int furthest_behind(int waited_for) const {
    const auto progress = [&](int rank) {
      const Desk& desk = region_->desk(rank);
      return Place::of(desk.place.load()).number + desk.left.load();
    };
    int behind = waited_for;
    for (int rank = 0; rank < ranks_; ++rank)
      if (rank != rank_ && progress(rank) < progress(behind)) behind = rank;
    return behind;
  }

  [[noreturn]] void fail(Failure why) {
    watch_.fail(std::move(why));
    watch_.throw_failure();
  }

  const Limits limits_;
  const int rank_, ranks_;
  const std::unique_ptr<Region> region_;
  Desk& desk_;
  std::vector<Read> reads_;
  std::size_t heap_used_ = 0;
  std::uint64_t number_ = 0;
  std::uint64_t history_ = 0;  // of all calls so far
  Place here_;
  Clock::time_point end_;
  Watch watch_;  // last: its thread uses the rest
};

}  // namespace

std::unique_ptr<SharedMemoryGroup> join_shared_memory(const Member& member) {
  if (!Address(member.address).local)
    throw InvalidArgument(str("ranks that share memory meet at unix:/path, not at ", member.address));
  Links links = meet(member, "shared memory", false);
  const Clock::time_point end = Clock::now() + member.patience;
  std::unique_ptr<Region> region;
  if (links.rank == 0) {
    region = std::make_unique<Region>(links.ranks);
    for (int r = 1; r < links.ranks; ++r)
      send_descriptor(links.control[static_cast<std::size_t>(r)], region->fd(), end, str("rank ", r));
  } else {
    region = std::make_unique<Region>(links.ranks, receive_descriptor(links.control[0], end, "rank 0"));
  }
  return std::make_unique<SharedMemoryCommunicator>(std::move(region), std::move(links), member.limits);
}

}  // namespace pagedcore::comm
