// The KV cache manager: block tables over a pool of physical blocks (PagedAttention, section 4.2), with copy-on-write
// sharing (4.4), an automatic prefix cache, and places in a swap space (4.5). Logic only: it returns block ids and
// never touches a tensor.
//
// Three primitives carry everything (section 5.2): append, fork, free. A sequence has a *length*, the number of token
// slots its table has reserved, and the caller writes the slots that append() made writable before anything reads them.
//
// Layers with different attention windows have different needs, so a model's layers are divided into *groups* of
// equally many layers with one window each, and a sequence has one table per group. A block holds block_size tokens of
// the layers of one group; all groups take their blocks from one pool. Most models have one group with full context.
//
// Not thread-safe: one thread owns a manager. Calls that throw have changed nothing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "pagedcore/export.hpp"
#include "pagedcore/fields.hpp"
#include "pagedcore/types.hpp"

namespace pagedcore {

namespace kv {
class Cache;
class Scratch;
}  // namespace kv

/// A hash of the `count` tokens of a block, started from `seed` (which stands for the blocks before). Prefix hits are
/// verified token by token, so a bad hash costs time and never correctness; a keyed one resists crafted collisions.
using PrefixHash = std::uint64_t (*)(std::uint64_t seed, const TokenId* tokens, std::size_t count) noexcept;

/// How sequences get their slots. All but the first are the baselines of PagedAttention, section 6.1: on admission a
/// sequence gets one contiguous chunk of a buddy allocator for all that it may become, and shares nothing.
enum class AllocationPolicy : std::uint8_t {
  paged,  // blocks as they are needed, shared copy-on-write
  max,    // "Orca (Max)": for the longest output that max_reservation admits
  pow2,   // "Orca (Pow2)": for the request's output, rounded up to a power of two
  oracle  // "Orca (Oracle)": for exactly the request's output
};
template <>
struct Words<AllocationPolicy> {
  static constexpr Word<AllocationPolicy> list[] = {{AllocationPolicy::paged, "paged"},
                                                    {AllocationPolicy::max, "max"},
                                                    {AllocationPolicy::pow2, "pow2"},
                                                    {AllocationPolicy::oracle, "oracle"}};
};

// What an engine's options and a cache's mean alike.
inline constexpr char kPrefixCachingDoc[] = "Keep the KV of finished requests for prompts that begin alike.";
inline constexpr char kAllocationDoc[] =
    "paged, or, for comparisons, a baseline of the PagedAttention paper: a request reserves a contiguous chunk on "
    "admission, for the longest output (max), for its max_tokens rounded up to a power of two (pow2), or for "
    "exactly that (oracle), and shares nothing.";
inline constexpr char kMaxReservationDoc[] = "Tokens of the longest sequence under such a baseline.";

inline constexpr std::size_t kMostWindows = 64;
inline constexpr std::uint32_t kMostLength = 0xffffffff;  // tokens of a sequence

struct KvCacheConfig {
  std::uint32_t num_blocks = 0;
  std::uint32_t block_size = 16;
  bool enable_prefix_caching = true;
  PrefixHash prefix_hash = nullptr;      // null: the built-in one
  std::vector<std::uint32_t> windows{};  // attention window of each group of layers in tokens, 0: full context; empty:
                                         // one group with full context. At most kMostWindows
  std::uint32_t num_swap_blocks = 0;     // slots of the swap space; lower slots are used first
  AllocationPolicy allocation = AllocationPolicy::paged;
  std::uint32_t max_reservation = 2048;  // tokens of the longest sequence, unless paged. The largest chunk has as many
                                         // blocks, rounded up to a power of two
  std::uint32_t max_events = 0;          // > 0: keep up to so many CacheEvents for take_events()

  /// All but the hash, which is code.
  template <class V>
  static void fields(V&& v) {
    using C = KvCacheConfig;
    v(field("num_blocks", &C::num_blocks, "Physical blocks.", in(1, kMostBlocks)));
    v(field("block_size", &C::block_size, "Tokens per block.", in(1, 65536)));
    v(field("enable_prefix_caching", &C::enable_prefix_caching, kPrefixCachingDoc));
    v(field("windows", &C::windows,
            "Attention window of each group of layers in tokens, 0: full context. None: one group with full context."));
    v(field("num_swap_blocks", &C::num_swap_blocks, "Slots of the swap space.", in(0, kMostCount)));
    v(field("allocation", &C::allocation, kAllocationDoc));
    v(field("max_reservation", &C::max_reservation, kMaxReservationDoc, in(1, kMostCount)));
    v(field("max_events", &C::max_events, "Events of the prefix cache that are kept.", in(0, kMostCount)));
  }
};

/// Throws InvalidArgument for a value outside its range, and for more windows than there may be.
PAGEDCORE_API void validate(const KvCacheConfig& config);

/// Where every block is. free + cached + in_flight + used == num_blocks at all times.
struct KvCacheCounts {
  std::uint32_t total = 0;
  std::uint32_t free = 0;
  std::uint32_t cached = 0;
  std::uint32_t in_flight = 0;
  std::uint32_t used = 0;
  std::uint32_t shared = 0;
  std::uint32_t swap_total = 0;
  std::uint32_t swapped = 0;
  std::uint32_t reserved = 0;

  template <class V>
  static void fields(V&& v) {
    using C = KvCacheCounts;
    v(field("total", &C::total, "Blocks that were allocated.").gauge("blocks_total"));
    v(field("free", &C::free, "Hold nothing of use.").gauge("blocks_free"));
    v(field("cached", &C::cached, "Referenced by no sequence, kept for prefix hits, reusable at once.")
          .gauge("blocks_cached"));
    v(field("in_flight", &C::in_flight, "Freed, but a step that may read them has not completed.")
          .gauge("blocks_in_flight"));
    v(field("used", &C::used, "Referenced by one or more sequences.").gauge("blocks_used"));
    v(field("shared", &C::shared, "Of the used: referenced by more than one.").gauge("blocks_shared"));
    v(field("swap_total", &C::swap_total, "Slots of the swap space, host memory and file.").gauge("swap_blocks_total"));
    v(field("swapped", &C::swapped, "Of them in use.").gauge("blocks_swapped"));
    v(field("reserved", &C::reserved, "Contiguous allocation: blocks in chunks, those in use and those set aside.")
          .gauge("blocks_reserved"));
  }
};

/// What a way of allocation can do, for those who plan.
struct KvTraits {
  bool shares = true;  // sequences of different requests share blocks: prefixes are found in the cache, or registered
  bool grows = true;  // blocks are taken as sequences grow: they may be short then, and freeing a sequence helps others
};

/// All that a group of sequences may become, for an allocation that sets it aside at once.
struct KvGroup {
  std::uint32_t sequences = 0;  // the most that it has at once
  std::uint32_t tokens = 0;     // set aside for each: KvCacheManager::reservation()
};

/// Slots that are set aside for a sequence beyond its length.
struct KvSetAside {
  std::uint64_t needed = 0;    // for tokens that will come
  std::uint64_t unneeded = 0;  // for some that never will
};

/// Blocks whose contents begin with the first `num_tokens` tokens of a prompt. Valid until the manager next changes.
struct PrefixMatch {
  std::vector<BlockId> blocks;   // [blocks_for(num_tokens)][groups], verified token by token; kNoBlock where a window
                                 // has passed
  std::uint32_t num_tokens = 0;  // may end inside the last block, which then holds other tokens behind
};

enum class CacheEventKind : std::uint8_t {
  stored,   // a block can be found
  removed,  // and no more, nor can what continues it
  cleared,  // nothing that was stored before can be found, or events were lost: forget all
};
template <>
struct Words<CacheEventKind> {
  static constexpr Word<CacheEventKind> list[] = {
      {CacheEventKind::stored, "stored"}, {CacheEventKind::removed, "removed"}, {CacheEventKind::cleared, "cleared"}};
};

/// News of the prefix cache, for those who route requests to where their prefix is.
struct CacheEvent {
  CacheEventKind kind = CacheEventKind::stored;
  std::uint64_t id = 0;
  std::uint64_t parent = 0;
  std::uint64_t salt = 0;
  std::vector<TokenId> tokens{};

  template <class V>
  static void fields(V&& v) {
    using E = CacheEvent;
    v(field("kind", &E::kind,
            "stored: a block can be found. removed: no more, nor can what continues it. cleared: forget all that was "
            "stored."));
    v(field("id", &E::id, "Of one publication; never used again."));
    v(field("parent", &E::parent, "Stored: the id of the block before; 0 at the beginning of a prompt."));
    v(field("salt", &E::salt, "Stored at the beginning of a prompt: the tenant's."));
    v(field("tokens", &E::tokens, "Stored: those of the block, block_size or fewer."));
  }
};

/// A scratch copy of the manager's arithmetic: what would be available after some frees, holds and takes. Planning
/// tries its decisions here and applies them to the manager only once the whole plan is known to fit.
class PAGEDCORE_API KvScratch {
 public:
  ~KvScratch();
  KvScratch(KvScratch&&) noexcept;
  KvScratch& operator=(KvScratch&&) noexcept;

  /// Blocks that could still be taken.
  std::uint32_t available() const noexcept;
  /// As KvCacheManager::append(seq, length): takes what it would take, or returns false and changes nothing.
  bool append(SequenceId seq, std::uint32_t length);
  /// As KvCacheManager::create() with this match followed by append(length): holds the matched blocks and takes the
  /// rest. False, changing nothing, when fewer than `spare` blocks would then be available, and also when an append()
  /// tried here is going to overwrite a matched block. Apply all creations before the appends, so that no append evicts
  /// what a match found.
  /// Where slots are set aside, as create_reserved(): `group` is what must be there, and nothing else counts.
  bool create(const PrefixMatch& match, std::uint32_t length, std::uint64_t spare = 0, const KvGroup& group = {});
  /// As KvCacheManager::fork() of a parent at num_tokens followed by append(length); `spare` as above.
  bool fork(SequenceId parent, std::uint32_t num_tokens, std::uint32_t length, std::uint64_t spare = 0);
  /// As KvCacheManager::free(seq, last_reader).
  void free(SequenceId seq, StepId last_reader);
  /// As KvCacheManager::swap_out(): forgets what append() took here for these sequences. False when slots are short.
  bool swap_out(std::span<const SequenceId> group, StepId last_reader);
  /// As KvCacheManager::swap_in(); false when blocks are short, `spare` as above.
  bool swap_in(std::span<const SequenceId> group, std::uint64_t spare = 0);

 private:
  friend class KvCacheManager;
  explicit KvScratch(std::unique_ptr<kv::Scratch> impl) noexcept;
  std::unique_ptr<kv::Scratch> impl_;
};

class PAGEDCORE_API KvCacheManager {
 public:
  /// Throws as validate(), and OutOfMemory for tables that are more than the available memory.
  explicit KvCacheManager(const KvCacheConfig& config);
  ~KvCacheManager();
  KvCacheManager(KvCacheManager&&) noexcept;
  KvCacheManager& operator=(KvCacheManager&&) noexcept;

  const KvCacheConfig& config() const noexcept;
  KvCacheCounts counts() const noexcept;
  /// Blocks that append() could take now: free + cached.
  std::uint32_t available() const noexcept;
  std::uint32_t blocks_for(std::uint64_t tokens) const noexcept;
  KvTraits traits() const noexcept;

  /// Layer groups, and the blocks that a sequence of `tokens` holds between steps, in all of them together: of a
  /// group with a window no more than that reaches.
  std::uint32_t num_layer_groups() const noexcept;
  std::uint64_t footprint(std::uint64_t tokens) const noexcept;

  /// The longest cached prefix of `tokens`, at most `max_tokens`. It may end inside a block, unless `whole_blocks`.
  /// Tenants with different salts never share.
  PrefixMatch match_prefix(std::span<const TokenId> tokens, std::uint64_t salt, std::uint32_t max_tokens,
                           bool whole_blocks = false) const;

  // Blocks whose contents come from elsewhere, or go there.

  /// Which blocks of this chain the cache has: [whole blocks, from the first on][groups], as far as those of group 0
  /// go; kNoBlock where another group has none.
  std::vector<BlockId> cached_blocks(std::span<const TokenId> tokens, std::uint64_t salt) const;
  /// Takes blocks for those of this chain that are offered ([tokens.size() / block_size][groups], not 0) and not there,
  /// as far as there are any and the chain has no gap in group 0, and publishes them, cached: whoever matches from now
  /// on finds them, so the caller fills them before anything reads the cache. As cached_blocks(), but only the blocks
  /// that were taken. None without a prefix cache.
  std::vector<BlockId> import_prefix(std::span<const TokenId> tokens, std::uint64_t salt,
                                     std::span<const std::uint8_t> offered);

  /// A new sequence whose table starts with the matched blocks (references taken) and whose length is match.num_tokens.
  /// `seq` must be new. `salt` joins the keys under which its blocks are published. A block inside which the match ends
  /// is borrowed: the first append() replaces it by a copy of the matched tokens.
  void create(SequenceId seq, std::uint64_t salt, const PrefixMatch& match);

  /// The tokens that the allocation policy sets aside for a sequence of so many; the longest that it may become when
  /// paged.
  std::uint32_t reservation(std::uint32_t prompt, std::uint32_t max_output) const noexcept;
  /// A new, empty sequence, unless paged: the first of a group of `count`, each with a chunk for `tokens`. The others
  /// are forked from members. A fork reads its parent's blocks until its first append() copies all of them into a chunk
  /// of its own. The chunks are free again when the group has no members. Throws OutOfMemory when chunks are short.
  void create_reserved(SequenceId seq, std::uint32_t count, std::uint32_t tokens);
  /// Why a group of so many sequences could not have what is set aside for it even in an empty cache; empty when it
  /// could, or nothing is set aside. Reads the configuration only.
  std::string why_never(std::uint32_t sequences, std::uint32_t prompt, std::uint32_t max_output) const;
  /// What is set aside for a sequence of now `length` tokens; nothing when paged.
  KvSetAside set_aside(std::uint32_t prompt, std::uint32_t max_output, std::uint32_t length) const noexcept;

  // create(), create_reserved() and fork() in two halves. The first reserves all host memory and makes every check: the
  // sequence exists, is empty and can only be started or freed. The second cannot fail, as long as nothing was taken
  // from the prefix cache, and no chunk, in between.

  /// `length`: of the appends to come. `group` counts where slots are set aside, `match` where they are not.
  void prepare(SequenceId seq, std::uint32_t length, std::uint64_t salt, const PrefixMatch& match,
               const KvGroup& group);
  void start(SequenceId seq, std::uint64_t salt, const PrefixMatch& match, const KvGroup& group);
  void prepare_fork(SequenceId parent, SequenceId child, std::uint32_t num_tokens);
  void start_fork(SequenceId parent, SequenceId child, std::uint32_t num_tokens);
  void start_fork(SequenceId parent, SequenceId child, std::uint32_t num_tokens, std::uint64_t salt);

  /// Reserves host memory so that append(seq, length) can only fail for lack of blocks.
  void reserve(SequenceId seq, std::uint32_t length);
  /// The most copies that one append() each to so many sequences, which then have so many blocks together, makes.
  std::size_t most_copies(std::size_t sequences, std::size_t blocks) const noexcept;

  /// Makes the slots up to `length` writable: takes new blocks, and for a shared last block that is going to be written
  /// appends a copy to `copies` (its filled tokens only) and replaces it. `reader` is the step that does the copies: a
  /// borrowed block is not reused before it has completed. Throws OutOfMemory when blocks are short. The block table,
  /// as block_table() returns it.
  std::span<const BlockId> append(SequenceId seq, std::uint32_t length, std::vector<BlockCopy>& copies,
                                  StepId reader = StepId{0});

  /// `child` (new) shares the parent's blocks that cover the first `num_tokens` tokens, num_tokens <= the parent's
  /// length. Throws InvalidArgument also when a window of the child reaches blocks that the parent let go.
  void fork(SequenceId parent, SequenceId child, std::uint32_t num_tokens);
  /// The same for a tenant of its own: what the child computes is published under `salt`, and nothing at all as long
  /// as the blocks that it shares can be found under another.
  void fork(SequenceId parent, SequenceId child, std::uint32_t num_tokens, std::uint64_t salt);

  /// Records that the first `num_computed` slots hold the KV of `tokens` (at least that many): full blocks enter the
  /// prefix cache, and with `tail` the partly filled last one, for a sequence that is about to go. `tokens` must extend
  /// what was published for this sequence before. `tokens` may leave out the first ones, at most published() of them.
  void publish(SequenceId seq, std::span<const TokenId> tokens, std::uint32_t num_computed, bool tail = false,
               std::uint32_t left_out = 0);
  /// How many of its first tokens, in full blocks, publish() has seen and need not see again; kMostLength for a
  /// sequence that publishes nothing any more.
  std::uint32_t published(SequenceId seq) const;

  /// Frees the blocks that no window reaches any more from position `next` on (at most the length).
  void slide(SequenceId seq, std::uint32_t next, StepId last_reader);

  /// Reserves host memory so that swap_out() of a group with this sequence cannot fail for lack of it, but for `moves`.
  void reserve_swap(SequenceId seq);
  /// Moves a group of sequences out of memory: every block that only they reference gets one slot, however many of them
  /// share it, and is appended to `moves`; blocks that others reference too stay where they are, with the group's
  /// references. The blocks are released behind `last_reader`, and the moves come before whatever writes to them. Until
  /// swap_in() the sequences can only be freed. Throws OutOfMemory when slots are short.
  void swap_out(std::span<const SequenceId> group, std::vector<BlockSwap>& moves, StepId last_reader);
  /// The way back: a block for every slot, shared as before. The slots are free at once: they may be written again by
  /// any later step. Throws OutOfMemory when blocks are short.
  void swap_in(std::span<const SequenceId> group, std::vector<BlockSwap>& moves);
  bool is_swapped(SequenceId seq) const;

  /// Drops the sequence. Blocks without further references become free or cached once `last_reader` has completed: the
  /// last step that may read, or copy from, any of its blocks.
  void free(SequenceId seq, StepId last_reader);

  /// Every step up to and including `step` has completed: blocks fenced by it become reusable.
  void complete(StepId step) noexcept;

  /// Forgets all cached prefixes. Used blocks stay with their sequences, which publish nothing more: what was computed
  /// before the call never comes back.
  void clear_prefix_cache() noexcept;

  bool contains(SequenceId seq) const noexcept;
  std::uint32_t length(SequenceId seq) const;
  /// Physical blocks of the sequence, [logical block][group]; kNoBlock where a window has passed, and where the block
  /// is in the swap space. Valid until the manager next changes.
  std::span<const BlockId> block_table(SequenceId seq) const;
  /// Number of tables that reference a block.
  std::uint32_t references(BlockId block) const;
  /// As block_table(): where the blocks of a sequence are that is swapped out, kNoSlot for those that stayed; else
  /// empty.
  std::span<const SwapSlot> swap_slots(SequenceId seq) const;
  /// Where every block is, as EngineSnapshot::cells says it, with so many blocks to a cell (at least 1).
  std::vector<std::uint8_t> cells(std::uint32_t blocks_per_cell) const;

  KvScratch scratch() const;

  /// Events since the last call, oldest first (KvCacheConfig::max_events). When there are too many, or no memory for
  /// one, all are dropped for one that says `cleared`.
  std::vector<CacheEvent> take_events();

  /// Verifies every invariant in O(blocks + tables); throws Corrupt naming the first that is broken.
  void check() const;

 private:
  std::unique_ptr<kv::Cache> impl_;
};

}  // namespace pagedcore
