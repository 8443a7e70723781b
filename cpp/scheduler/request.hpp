// A request as the scheduler keeps it: its samples, and its place in a queue.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "pagedcore/scheduler.hpp"
#include "pagedcore/types.hpp"
#include "scheduler/ordered_queue.hpp"

namespace pagedcore::sched {

/// Sample::most_shared of one from whose rows nobody wants more than the next token.
inline constexpr std::uint32_t kAllShared = ~0u;

/// One of the n outputs of a request, or one beam of its search. It is *started* while it has a sequence, that is,
/// while it holds blocks. Of a beam search *finished* means that the place is not in use.
struct alignas(64) Sample {
  std::vector<TokenId> tokens;        // its output: the prompt is the request's, and all samples share it
  SequenceId sequence{};              // a new one for every start
  std::uint32_t computed = 0;         // tokens whose KV is in the cache: the sequence's length between steps
  std::uint32_t computed_before = 0;  // the most there ever were: what is below is a recomputation
  std::uint32_t block_end = 0;        // tokens at which the block that the next one goes to is full; 0: not known
  // How an unstarted sample other than the leader starts: as a fork of sample `fork_parent` (a lower one) as soon as
  // that has computed the `fork_length` tokens that both begin with.
  std::uint32_t fork_parent = 0;
  std::uint32_t fork_length = 0;
  std::uint32_t most_shared = kAllShared;  // tokens that it may have from others: it computes those behind them itself
  bool started = false;
  FinishReason finish = FinishReason::none;

  bool is_finished() const noexcept { return finish != FinishReason::none; }
};

struct PinnedPrefix;
struct Tenant;

/// ServiceKey::turn of one that waits for its turn.
inline constexpr std::uint64_t kNoTurn = ~std::uint64_t{0};

/// The order of service. An order leaves at zero what it does not look at.
struct ServiceKey {
  std::uint64_t turn = 0;  // fair: in which it was admitted, while it runs, else kNoTurn
  std::int32_t priority = 0;
  double arrival = 0.0;
  std::uint64_t order = 0;  // of submission

  bool is_before(const ServiceKey& other) const noexcept {
    if (turn != other.turn) return turn < other.turn;
    if (priority != other.priority) return priority > other.priority;
    return arrival != other.arrival ? arrival < other.arrival : order < other.order;
  }
};

/// What it was submitted with, and what follows from that alone.
struct RequestLimits {
  std::uint32_t prompt_size = 0;
  std::uint32_t max_tokens = 0;
  std::uint32_t beam_width = 0;   // 0: samples
  bool is_open_ended = false;     // max_tokens may be lowered
  bool is_whole = false;          // computed in one step, and of no use to others
  std::uint32_t unscored = 0;     // leading tokens whose rows score nothing, of one that scores its prompt
  std::uint64_t most_blocks = 0;  // that it may come to hold
  std::uint64_t own_blocks = 0;   // of them beside its prefix
};

struct RequestProgress {
  bool sampled = false;                   // the prompt's last row was sampled: samples have tokens of their own
  bool scores = false;                    // prompt rows are still to be scored
  bool waited = false;                    // for a prefix that another request was computing
  bool since_preempted = true;            // it has computed something new since it was last preempted
  bool charged = false;                   // its tenant, for the prompt
  std::uint32_t stored = 0;               // leading tokens that a store has; 0 once they were read, or could not be
  bool reads_store = false;               // that was asked for
  std::uint32_t cached_at_admission = 0;  // tokens that it found computed when it was last admitted
};

/// On demand: Scheduler::force_preempt(). The latter comes first and leaves nothing to do for the former.
enum class Forced : std::uint8_t { none, swap_in_next_plan, recompute_after_commit };

struct alignas(64) Request {
  // What every step reads comes first: two cache lines.
  std::vector<Sample> samples;
  RequestLimits limits;
  std::uint32_t unfinished = 0;  // samples
  std::uint32_t unstarted = 0;   // unfinished samples without a sequence
  RequestProgress progress;
  bool running = false;  // in the running queue, else in the waiting one
  bool swapped = false;  // waits with all its sequences in the swap space
  Forced forced = Forced::none;
  RequestId id{};
  StepId last_step{};            // the last that was planned with one of its sequences, and so may read its blocks
  std::uint32_t first_work = 0;  // of that step, where it had work
  Tenant* tenant = nullptr;
  QueuePlace<Request> place;  // among those that run, or that wait for the same tenant
  QueuePlace<Request> swapped_place;
  ServiceKey key;
  std::uint64_t salt = 0;
  PinnedPrefix* prefix_used = nullptr;
  PinnedPrefix* prefix_computed = nullptr;  // a registered prefix that is computed by this request
  std::vector<TokenId> prompt;

  bool is_beam_search() const noexcept { return limits.beam_width > 0; }
  /// Sequences that the request has, or will have once its prompt is computed.
  std::uint32_t group_size() const noexcept {
    return is_beam_search() && !progress.sampled ? limits.beam_width : unfinished;
  }
  /// The most sequences that it will have at once from now on.
  std::uint32_t most_sequences() const noexcept { return is_beam_search() ? limits.beam_width : unfinished; }
  /// Tokens known of a sample.
  std::uint32_t size(const Sample& sample) const noexcept {
    return limits.prompt_size + static_cast<std::uint32_t>(sample.tokens.size());
  }
  /// Tokens of a sample that it computes on its own. The last one of a beam waits until all beams are there.
  std::uint32_t target(const Sample& sample) const noexcept {
    return size(sample) - (is_beam_search() && progress.sampled);
  }
  /// Tokens that the longest sample has generated.
  std::uint32_t generated() const noexcept {
    std::size_t longest = 0;
    for (const Sample& sample : samples) longest = std::max(longest, sample.tokens.size());
    return static_cast<std::uint32_t>(longest);
  }
  /// The most slots a sample ever fills: the last token's KV is never computed.
  std::uint32_t max_length() const noexcept {
    return limits.prompt_size + (limits.max_tokens > 0 ? limits.max_tokens - 1 : 0);
  }
  /// The first unfinished sample computes for all until the prompt is there.
  std::uint32_t leader() const noexcept {
    const auto first = std::ranges::find_if(samples, [](const Sample& sample) { return !sample.is_finished(); });
    return static_cast<std::uint32_t>(first - samples.begin());
  }
  TokenId token(const Sample& sample, std::uint32_t position) const noexcept {
    return position < limits.prompt_size ? prompt[position] : sample.tokens[position - limits.prompt_size];
  }
  /// Where the token at this position, which exists, lies.
  const TokenId* place_of(const Sample& sample, std::uint32_t position) const noexcept {
    return position < limits.prompt_size ? prompt.data() + position
                                         : sample.tokens.data() + (position - limits.prompt_size);
  }
  /// Appends the tokens [first, end).
  void copy_tokens(const Sample& sample, std::uint32_t first, std::uint32_t end, std::vector<TokenId>& to) const {
    const auto at = [](const std::vector<TokenId>& list, std::uint32_t i) {
      return list.begin() + static_cast<std::ptrdiff_t>(i);
    };
    const std::uint32_t size = limits.prompt_size;
    if (first < size) to.insert(to.end(), at(prompt, first), at(prompt, std::min(end, size)));
    if (end > size) to.insert(to.end(), at(sample.tokens, std::max(first, size) - size), at(sample.tokens, end - size));
  }
  bool is_before(const Request& other) const noexcept { return key.is_before(other.key); }
  /// Whether the next `rows` tokens of a sample go to a block that is its own: it has written to it, and nobody forks
  /// from the only sample. So a decode asks the cache once in `block_size` steps.
  bool stays_in_block(const Sample& sample, std::uint32_t rows, std::uint32_t block_size) const noexcept {
    return samples.size() == 1 && sample.computed + rows <= sample.block_end &&
           sample.computed + block_size != sample.block_end;
  }
};

inline bool is_served_before(const Request& a, const Request& b) noexcept { return a.is_before(b); }

/// Requests in the order of service.
using RequestQueue = OrderedQueue<Request, &Request::place, is_served_before>;
using SwappedQueue = OrderedQueue<Request, &Request::swapped_place, is_served_before>;

}  // namespace pagedcore::sched
