#include "comm/threads.hpp"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <mutex>
#include <new>
#include <thread>

#include "base/wait_point.hpp"
#include "comm/calls.hpp"
#include "comm/failure.hpp"

// A rank that calls shows what it sends in its slot, then bumps the slot's place in the order of calls. Whoever needs
// the bytes waits for that place and copies them; the sender returns once all who read from it have left the call. When
// a group fails in the middle, a rank may throw only after nobody copies: its memory is its caller's from then on.

namespace pagedcore::comm {
namespace {

using Clock = std::chrono::steady_clock;

struct alignas(64) Slot {
  std::atomic<std::uint64_t> place{0};  // Place::word() of the call that the rank is in
  std::atomic<std::uint64_t> left{0};   // the number of the last call that it has left
  std::atomic<bool> copying{false};
  std::atomic<bool> gone{false};
  // Written before `place`, stable until those who read have left.
  const std::span<const std::byte>* send = nullptr;
  bool same_for_all = false;

  std::span<const std::byte> to(std::size_t rank) const { return send[same_for_all ? 0 : rank]; }
};

struct Group {
  Group(int ranks, Limits l) : limits(l), slots(static_cast<std::size_t>(ranks)) {}

  const Limits limits;
  std::vector<Slot> slots;
  WaitPoint news;
  std::atomic<bool> failed{false};
  std::mutex mutex;
  Failure failure;  // under the mutex until `failed`, constant afterwards

  void fail(Failure why) noexcept {
    {
      const std::lock_guard lock(mutex);
      if (failed.load()) return;
      failure = std::move(why);
      failed.store(true);
    }
    news.wake();
  }

  [[noreturn]] void throw_when_nobody_copies() {
    for (const Slot& slot : slots)  // a copy under way ends by itself
      while (slot.copying.load()) std::this_thread::yield();
    throw_failure(failure);
  }

  /// Of two ranks that others wait for, the one that got less far is the one that is lost.
  int furthest_behind(int self, int waited_for) const {
    const auto progress = [&](int rank) {
      const Slot& slot = slots[static_cast<std::size_t>(rank)];
      return Place::of(slot.place.load()).number + slot.left.load();
    };
    int behind = waited_for;
    for (int rank = 0; rank < static_cast<int>(slots.size()); ++rank)
      if (rank != self && progress(rank) < progress(behind)) behind = rank;
    return behind;
  }
};

class ThreadCommunicator final : public Communicator {
 public:
  ThreadCommunicator(std::shared_ptr<Group> group, int rank)
      : group_(std::move(group)), rank_(rank), self_(static_cast<std::size_t>(rank)) {}

  ~ThreadCommunicator() override {
    group_->slots[self_].gone.store(true);
    group_->news.wake();
  }

  int rank() const noexcept override { return rank_; }
  int size() const noexcept override { return static_cast<int>(group_->slots.size()); }

  void all_to_all(SendSpans send, ReceiveSpans receive) override {
    check_all_to_all(*this, send, receive);
    exchange(Call::all_to_all, send.data(), false, receive);
  }

  void all_gather(std::span<const std::byte> send, ReceiveSpans receive) override {
    check_all_gather(*this, send, receive);
    exchange(Call::all_gather, &send, true, receive);
  }

  std::size_t broadcast(std::span<std::byte> bytes, int root, Patience patience) override {
    check_root(*this, root);
    const std::span<const std::byte> send = bytes;
    arrive({number_ + 1, Call::broadcast, root}, &send, true);
    if (root == rank_) {
      for_others([&](int peer) { wait_until_there(peer, patience); });
      for_others([&](int peer) { wait_until_left(peer); });
      return bytes.size();
    }
    wait_until_there(root, patience);
    const std::size_t sent = copy(root, bytes, false);
    leave();
    return sent;
  }

  void barrier() override {
    arrive({number_ + 1, Call::barrier, 0}, nullptr, false);
    for_others([&](int peer) { wait_until_there(peer, Patience::deadline); });
    leave();
  }

  void abort(std::string_view why) noexcept override {
    try {
      group_->fail(aborted_by(rank_, why));
    } catch (const std::bad_alloc&) {
      group_->fail({Failure::Kind::aborted, rank_, {}});
    }
  }

 private:
  template <class Visit>
  void for_others(const Visit& visit) {
    for (int step = 1; step < size(); ++step) visit((rank_ + step) % size());
  }

  void arrive(Place place, const std::span<const std::byte>* send, bool same_for_all) {
    if (group_->failed.load()) group_->throw_when_nobody_copies();
    number_ = place.number;
    here_ = place;
    end_ = Clock::now() + group_->limits.deadline;
    Slot& slot = group_->slots[self_];
    slot.send = send;
    slot.same_for_all = same_for_all;
    slot.place.store(place.word());
    group_->news.wake();
  }

  void leave() {
    group_->slots[self_].left.store(number_);
    group_->news.wake();
  }

  void exchange(Call call, const std::span<const std::byte>* send, bool same_for_all, ReceiveSpans receive) {
    arrive({number_ + 1, call, 0}, send, same_for_all);
    for_others([&](int peer) {
      wait_until_there(peer, Patience::deadline);
      copy(peer, receive[static_cast<std::size_t>(peer)], true);
    });
    leave();
    copy_own(group_->slots[self_].to(self_), receive[self_]);  // while others still copy
    for_others([&](int peer) { wait_until_left(peer); });
  }

  /// What the peer shows for this rank; returns its size, which must be that of `to`, or at most that.
  std::size_t copy(int peer, std::span<std::byte> to, bool exactly) {
    Slot& slot = group_->slots[self_];
    slot.copying.store(true);
    if (group_->failed.load()) {  // the sender may have thrown already: not even its spans are there
      slot.copying.store(false);
      group_->throw_when_nobody_copies();
    }
    const std::span<const std::byte> from = group_->slots[static_cast<std::size_t>(peer)].to(self_);
    const std::size_t sent = from.size();
    const bool fits = exactly ? sent == to.size() : sent <= to.size();
    if (fits && sent > 0) std::memcpy(to.data(), from.data(), sent);
    slot.copying.store(false);
    if (!fits) fail(other_size(peer, rank_, sent, to.size(), name_of(here_.call)));
    return sent;
  }

  /// Until the peer is in this rank's call, or past it.
  void wait_until_there(int peer, Patience patience) {
    const Slot& slot = group_->slots[static_cast<std::size_t>(peer)];
    wait(peer, patience, [&] { return Place::of(slot.place.load()).number >= number_; });
    const Place its = Place::of(slot.place.load());
    // Ahead may be who needs nothing from this rank any more: nothing is read from it either.
    const bool reads = here_.call != Call::barrier && !(here_.call == Call::broadcast && here_.root == rank_);
    if (its.word() != here_.word() && (reads || its.number == number_))
      fail(other_call(peer, name_of(its.call), rank_, name_of(here_.call)));
  }

  void wait_until_left(int peer) {
    const Slot& slot = group_->slots[static_cast<std::size_t>(peer)];
    wait(peer, Patience::deadline, [&] { return slot.left.load() >= number_; });
  }

  template <class Ready>
  void wait(int peer, Patience patience, const Ready& ready) {
    const Slot& slot = group_->slots[static_cast<std::size_t>(peer)];
    const auto over = [&] { return ready() || group_->failed.load() || slot.gone.load(); };
    const Limits& limits = group_->limits;
    if (patience == Patience::idle)
      group_->news.wait(limits.spin, over);
    else if (!over() && !group_->news.wait_until(limits.spin, end_, over))
      fail(lost_in_call(group_->furthest_behind(rank_, peer), rank_, name_of(here_.call), limits.deadline.count()));
    if (group_->failed.load()) group_->throw_when_nobody_copies();
    if (!ready()) fail(left_the_group(peer));
  }

  [[noreturn]] void fail(Failure why) {
    group_->fail(std::move(why));
    group_->throw_when_nobody_copies();
  }

  const std::shared_ptr<Group> group_;
  const int rank_;
  const std::size_t self_;
  std::uint64_t number_ = 0;
  Place here_;
  Clock::time_point end_;  // of the call
};

}  // namespace

std::vector<std::unique_ptr<Communicator>> make_thread_group(int ranks, Limits limits) {
  check_group(ranks, limits);
  const auto group = std::make_shared<Group>(ranks, limits);
  std::vector<std::unique_ptr<Communicator>> ends;
  for (int rank = 0; rank < ranks; ++rank) ends.push_back(std::make_unique<ThreadCommunicator>(group, rank));
  return ends;
}

}  // namespace pagedcore::comm
