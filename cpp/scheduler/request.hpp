// A request as the scheduler keeps it: its samples, and its place in a queue.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "pagedcore/scheduler.hpp"
#include "pagedcore/types.hpp"

namespace pagedcore::sched {

/// One of the n outputs of a request, or one beam of its search. It is *started* while it has a sequence, that is,
/// while it holds blocks. Of a beam search *finished* means that the place is not in use.
struct Sample {
  std::vector<TokenId> tokens;        // prompt, then output; empty while it has no token of its own (never of sample 0)
  SequenceId sequence{};              // a new one for every start
  std::uint32_t computed = 0;         // tokens whose KV is in the cache: the sequence's length between steps
  std::uint32_t computed_before = 0;  // the most there ever were: what is below is a recomputation
  // How an unstarted sample other than the leader starts: as a fork of sample `fork_parent` (a lower one) as soon as
  // that has computed the `fork_length` tokens that both begin with.
  std::uint32_t fork_parent = 0;
  std::uint32_t fork_length = 0;
  bool started = false;
  FinishReason finish = FinishReason::none;

  bool is_finished() const noexcept { return finish != FinishReason::none; }
};

struct Request;
struct Tenant;

/// Request::turn of one that waits for its turn.
inline constexpr std::uint64_t kNoTurn = ~std::uint64_t{0};

/// A registered prefix: a sequence that no request owns.
struct PinnedPrefix {
  PrefixId id{};
  std::vector<TokenId> tokens;
  std::uint64_t salt = 0;
  std::uint64_t blocks = 0;      // that it holds, or will hold
  SequenceId sequence{};         // once it is computed
  Request* computing = nullptr;  // until then
  std::uint32_t users = 0;       // requests that name it
  bool released = false;
};

struct Request {
  RequestId id{};
  double arrival = 0.0;
  std::uint64_t order = 0;    // of submission
  std::int32_t priority = 0;  // 0 where the order does not look at it
  std::uint64_t turn = 0;     // fair: in which it came in, while it runs, else kNoTurn. 0 in other orders
  Tenant* tenant = nullptr;
  std::uint32_t prompt_size = 0;
  std::uint32_t max_tokens = 0;
  std::uint32_t beam_width = 0;  // 0: samples
  std::uint64_t salt = 0;
  std::vector<Sample> samples;
  std::uint32_t unfinished = 0;  // samples
  std::uint32_t unstarted = 0;   // unfinished samples without a sequence
  bool sampled = false;          // the prompt's last row was sampled: samples have tokens of their own
  bool scores = false;           // prompt rows are still to be scored
  bool running = false;          // in the running queue, else in the waiting one
  bool evicted = false;          // by the plan in the making
  bool waited = false;           // for a prefix that another request was computing
  bool preempt_after_commit = false;
  bool swap_next = false;          // swapped out by the next plan
  bool swapped = false;            // waits with all its sequences in the swap space
  bool progressed = true;          // since it was last preempted
  bool charged = false;            // its tenant, for the prompt
  std::uint32_t found = 0;         // tokens that it found computed when it last came in
  std::uint64_t most_blocks = 0;   // that it may come to hold
  std::uint64_t needs = 0;         // of them beside its prefix
  PinnedPrefix* prefix = nullptr;  // that it uses
  PinnedPrefix* pins = nullptr;    // that it computes
  StepId last_step{};  // the last that was planned with one of its sequences, and so may read any of its blocks

  Request* prev = nullptr;
  Request* next = nullptr;

  bool is_beam_search() const noexcept { return beam_width > 0; }
  /// Sequences that the request has, or will have once its prompt is computed.
  std::uint32_t group_size() const noexcept { return is_beam_search() && !sampled ? beam_width : unfinished; }
  /// The most sequences that it will have at once from now on.
  std::uint32_t most_sequences() const noexcept { return is_beam_search() ? beam_width : unfinished; }
  /// Tokens known of a sample.
  std::uint32_t size(const Sample& sample) const noexcept {
    return std::max(static_cast<std::uint32_t>(sample.tokens.size()), prompt_size);
  }
  /// Tokens of a sample that it computes on its own. The last one of a beam waits until all beams are there.
  std::uint32_t target(const Sample& sample) const noexcept { return size(sample) - (is_beam_search() && sampled); }
  /// The most slots a sample ever fills: the last token's KV is never computed.
  std::uint32_t max_length() const noexcept { return prompt_size + (max_tokens > 0 ? max_tokens - 1 : 0); }
  /// The first unfinished sample computes for all until the prompt is there.
  std::uint32_t leader() const noexcept {
    const auto first = std::ranges::find_if(samples, [](const Sample& sample) { return !sample.is_finished(); });
    return static_cast<std::uint32_t>(first - samples.begin());
  }
  /// The order of service.
  bool is_before(const Request& other) const noexcept {
    if (turn != other.turn) return turn < other.turn;
    if (priority != other.priority) return priority > other.priority;
    return arrival != other.arrival ? arrival < other.arrival : order < other.order;
  }
};

/// Requests in order of service, linked through themselves: nothing here can fail.
class RequestQueue {
 public:
  Request* front() const noexcept { return front_; }
  Request* back() const noexcept { return back_; }
  std::uint32_t size() const noexcept { return size_; }
  bool empty() const noexcept { return size_ == 0; }

  /// O(1) when they come in order; else O(requests behind it).
  void insert(Request& request) noexcept {
    Request* after = back_;
    while (after != nullptr && request.is_before(*after)) after = after->prev;
    link(request, after);
  }
  /// As insert(), searching from the front: for one that is likely earlier than most.
  void insert_from_front(Request& request) noexcept {
    Request* before = front_;
    while (before != nullptr && before->is_before(request)) before = before->next;
    link(request, before != nullptr ? before->prev : back_);
  }
  void erase(Request& request) noexcept {
    (request.prev != nullptr ? request.prev->next : front_) = request.next;
    (request.next != nullptr ? request.next->prev : back_) = request.prev;
    request.prev = request.next = nullptr;
    --size_;
  }

 private:
  void link(Request& request, Request* after) noexcept {
    request.prev = after;
    request.next = after != nullptr ? after->next : front_;
    (request.prev != nullptr ? request.prev->next : front_) = &request;
    (request.next != nullptr ? request.next->prev : back_) = &request;
    ++size_;
  }

  Request* front_ = nullptr;
  Request* back_ = nullptr;
  std::uint32_t size_ = 0;
};

}  // namespace pagedcore::sched
