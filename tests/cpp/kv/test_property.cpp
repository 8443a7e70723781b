// Random operations on the manager against a model that is obviously right: every sequence is a plain list of tokens, a
// physical memory is written through the block tables and copied as append() says, and whatever a table or a prefix hit
// points to must read back as that sequence's own history.
#include <doctest/doctest.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>
#include <vector>

#include "../property_ops.hpp"
#include "pagedcore/error.hpp"
#include "pagedcore/kv_cache.hpp"

using namespace pagedcore;

namespace {

/// A KV value stands for everything it depends on: the tenant, and all tokens up to its own.
using Value = std::uint64_t;

std::vector<Value> kv_values(const std::vector<TokenId>& tokens, std::uint64_t salt) {
  std::vector<Value> values;
  Value value = salt * 1000003 + 17;
  for (const TokenId token : tokens) {
    value = (value ^ static_cast<Value>(token + 1)) * 0x100000001b3u;
    value ^= value >> 29;
    values.push_back(value);
  }
  return values;
}

std::uint64_t constant_hash(std::uint64_t, const TokenId*, std::size_t) noexcept { return 7; }
std::uint64_t poor_hash(std::uint64_t seed, const TokenId* tokens, std::size_t) noexcept {
  return (seed ^ static_cast<std::uint64_t>(tokens[0])) << 61;
}

struct ModelSequence {
  std::uint64_t salt = 0;
  std::vector<TokenId> tokens;
  bool borrows = false;              // its last block belongs to the cache
  std::vector<std::uint32_t> slid;   // [groups] positions below it are gone
  std::vector<std::uint32_t> freed;  // [groups] likewise, and their blocks are known to be freed
  int swapped = 0;                   // > 0: number of the group with which it is swapped out
};

/// What one group of layers keeps for a value.
Value of_group(Value value, std::size_t group) { return value ^ (group * 0x9e3779b97f4a7c15u); }

/// A read that a step in flight may still make.
struct PendingRead {
  std::uint32_t block, slot;
  Value expected;
};

class Machine {
 public:
  Machine(std::uint64_t seed, KvCacheConfig config)
      : random_(seed),
        kv_(config),
        windows_(config.windows.empty() ? std::vector<std::uint32_t>{0} : config.windows),
        memory_(config.num_blocks, std::vector<Value>(config.block_size)),
        slots_(config.num_swap_blocks, std::vector<Value>(config.block_size)) {}

  long hits = 0, partial_hits = 0, copies_made = 0, refusals = 0, swaps = 0, slides = 0;

  void step() {
    switch (pick(15)) {
      case 0:
        create();
        break;
      case 1:
      case 2:
      case 3:
      case 4:
        append();
        break;
      case 5:
        fork();
        break;
      case 6:
        publish();
        break;
      case 7:
        free(any_at_all(), StepId{completed_ + pick(4)});
        break;
      case 8:
        complete();
        break;
      case 9:
        batch();
        break;
      case 10:
        misuse();
        break;
      case 11:
        slide();
        break;
      case 12:
        swap_out();
        break;
      case 13:
        swap_in();
        break;
      default:
        if (pick(40) == 0) kv_.clear_prefix_cache();
    }
    verify();
  }

 private:
  std::uint64_t pick(std::uint64_t count) { return random_() % count; }

  /// A sequence that is in memory; 0 when there is none.
  SequenceId any() {
    std::vector<SequenceId> resident;
    for (const auto& [seq, model] : model_) {
      if (model.swapped == 0) resident.push_back(seq);
    }
    return resident.empty() ? SequenceId{0} : resident[pick(resident.size())];
  }
  SequenceId any_at_all() {
    if (model_.empty()) return SequenceId{0};
    return std::next(model_.begin(), static_cast<std::ptrdiff_t>(pick(model_.size())))->first;
  }
  std::size_t groups() const { return windows_.size(); }
  /// The first position that the next token of a sequence sees.
  std::size_t first_seen(std::size_t group, std::size_t length) const {
    return windows_[group] == 0 || length < windows_[group] ? 0 : length - windows_[group] + 1;
  }
  std::size_t at(std::size_t position, std::size_t group) const { return position / block_size() * groups() + group; }

  // Two tokens and few salts: equal prefixes, and equal blocks behind different prefixes, are common.
  std::vector<TokenId> random_tokens(std::size_t count) {
    std::vector<TokenId> tokens(count);
    for (TokenId& token : tokens) token = static_cast<TokenId>(pick(8) == 0);
    return tokens;
  }

  /// Of all blocks; `holders`: without those who have only borrowed them.
  std::map<std::uint32_t, std::uint32_t> references(bool holders = false) const {
    std::map<std::uint32_t, std::uint32_t> count;
    for (const auto& [seq, model] : model_) {
      const auto blocks = kv_.block_table(seq);
      for (std::size_t i = 0; i < blocks.size(); ++i) {
        if (blocks[i] == kNoBlock) continue;
        if (holders && model.borrows && i / groups() == model.tokens.size() / block_size()) continue;
        ++count[raw(blocks[i])];
      }
    }
    return count;
  }

  PrefixMatch match(const std::vector<TokenId>& tokens, std::uint64_t salt) {
    const bool whole = pick(3) == 0;
    PrefixMatch match = kv_.match_prefix(tokens, salt, static_cast<std::uint32_t>(tokens.size()), whole);
    if (whole) REQUIRE(match.num_tokens % block_size() == 0);
    const std::vector<Value> values = kv_values(tokens, salt);
    REQUIRE(match.num_tokens <= tokens.size());
    for (std::size_t g = 0; g < groups(); ++g) {
      for (std::size_t i = first_seen(g, match.num_tokens); i < match.num_tokens; ++i) {
        REQUIRE(memory_[raw(match.blocks[at(i, g)])][i % block_size()] == of_group(values[i], g));
      }
    }
    hits += match.num_tokens > 0;
    partial_hits += match.num_tokens % block_size() != 0;
    return match;
  }

  void create() {
    const std::uint64_t salt = pick(4) == 0;
    std::vector<TokenId> tokens = random_tokens(pick(6 * block_size()));
    const PrefixMatch prefix = match(tokens, salt);
    const SequenceId seq{++last_sequence_};
    kv_.create(seq, salt, prefix);
    tokens.resize(prefix.num_tokens);
    add(seq, salt, tokens);
  }

  /// With a match as its beginning, which ends inside a borrowed block.
  void add(SequenceId seq, std::uint64_t salt, std::vector<TokenId> tokens) {
    ModelSequence& model = model_[seq];
    model.salt = salt;
    model.borrows = tokens.size() % block_size() != 0;
    model.freed.assign(groups(), 0);
    for (std::size_t g = 0; g < groups(); ++g) {
      model.slid.push_back(static_cast<std::uint32_t>(first_seen(g, tokens.size())));
    }
    model.tokens = std::move(tokens);
  }

  /// Blocks that an append has to take, from the tables alone.
  std::uint32_t needed(SequenceId seq, std::size_t length) const {
    const std::size_t now = model_.at(seq).tokens.size();
    const auto blocks = kv_.block_table(seq);
    const auto count =
        static_cast<std::uint32_t>((length + block_size() - 1) / block_size() * groups() - blocks.size());
    if (length == now || now % block_size() == 0) return count;
    bool copies = model_.at(seq).borrows;
    const auto holders = references(true);
    for (std::size_t i = blocks.size() - groups(); i < blocks.size() && !copies; ++i)
      copies = holders.at(raw(blocks[i])) > 1;
    return count + static_cast<std::uint32_t>(copies ? groups() : 0);
  }

  /// Whether somebody else has borrowed the last block: then it is copied if it was once longer, which tables do not
  /// tell.
  bool is_lent(SequenceId seq) const {
    const auto blocks = kv_.block_table(seq);
    if (blocks.empty() || model_.at(seq).borrows) return false;
    const auto all = references(), holders = references(true);
    return std::any_of(blocks.end() - static_cast<std::ptrdiff_t>(groups()), blocks.end(), [&](BlockId last) {
      if (last == kNoBlock) return false;
      return all.at(raw(last)) > (holders.contains(raw(last)) ? holders.at(raw(last)) : 0);
    });
  }

  bool append(SequenceId seq, std::size_t grow) {
    ModelSequence& model = model_.at(seq);
    const auto length = static_cast<std::uint32_t>(model.tokens.size() + grow);
    const KvCacheCounts before = kv_.counts();
    KvScratch scratch = kv_.scratch();
    const bool fits = scratch.append(seq, length);
    std::uint32_t take = needed(seq, length);
    if (fits && is_lent(seq)) {
      const std::uint32_t taken = before.free + before.cached - scratch.available();
      REQUIRE((taken == take || taken == take + groups()));
      take = taken;
    }
    if (!is_lent(seq)) REQUIRE(fits == (take <= before.free + before.cached));
    std::vector<BlockCopy> copies;
    if (!fits) {
      ++refusals;
      CHECK_THROWS_AS(kv_.append(seq, length, copies), OutOfMemory);
      REQUIRE(kv_.length(seq) == model.tokens.size());
      REQUIRE(copies.empty());
      return false;
    }
    kv_.append(seq, length, copies, StepId{completed_ + 1});
    REQUIRE(kv_.available() == before.free + before.cached - take);
    REQUIRE(kv_.available() == scratch.available());
    execute(copies);
    write(seq, grow, copies.empty());
    return true;
  }

  void execute(const std::vector<BlockCopy>& copies) {
    for (const BlockCopy& copy : copies) {
      REQUIRE(copy.num_tokens % block_size() != 0);
      for (std::uint32_t i = 0; i < copy.num_tokens; ++i) memory_[raw(copy.dst)][i] = memory_[raw(copy.src)][i];
      ++copies_made;
    }
  }

  void write(SequenceId seq, std::size_t grow, bool in_place) {
    ModelSequence& model = model_.at(seq);
    const std::size_t from = model.tokens.size();
    for (const TokenId token : random_tokens(grow)) model.tokens.push_back(token);
    if (grow > 0) model.borrows = false;
    const std::vector<Value> values = kv_values(model.tokens, model.salt);
    const auto blocks = kv_.block_table(seq);
    const auto count = references(true);
    for (std::size_t n = from * groups(); n < values.size() * groups(); ++n) {
      const std::size_t i = n / groups(), g = n % groups();
      const std::uint32_t block = raw(blocks[at(i, g)]);
      REQUIRE(count.at(block) == 1);  // what is written is not shared
      // A sequence may overwrite what it shared with one that is gone: its steps come after that one's. Only blocks
      // that come from the pool have to wait for fences.
      const bool is_last_block = from % block_size() != 0 && i / block_size() == from / block_size();
      if (in_place && is_last_block) forget_reads(block, static_cast<std::uint32_t>(i % block_size()));
      memory_[block][i % block_size()] = of_group(values[i], g);
    }
  }

  void forget_reads(std::uint32_t block, std::uint32_t slot) {
    for (auto& [step, reads] : pending_) {
      std::erase_if(reads, [&](const PendingRead& read) { return read.block == block && read.slot == slot; });
    }
  }

  void append() {
    if (raw(any()) == 0) return create();
    append(any(), pick(3) == 0 ? pick(3 * block_size()) : 1);
  }

  void fork() {
    const SequenceId parent = any(), child{++last_sequence_};
    if (raw(parent) == 0) return;
    ModelSequence copy = model_.at(parent);
    if (pick(2) == 0) copy.tokens.resize(pick(copy.tokens.size() + 1));
    for (std::size_t g = 0; g < groups(); ++g) {
      // Whole blocks go, so a little more than was slid may be gone.
      if (first_seen(g, copy.tokens.size()) >= copy.slid[g]) continue;
      copy.tokens = model_.at(parent).tokens;
    }
    copy.borrows = copy.borrows && copy.tokens.size() % block_size() != 0 &&
                   (copy.tokens.size() / block_size() == model_.at(parent).tokens.size() / block_size());
    const std::size_t grow = pick(block_size() + 1);
    const auto length = static_cast<std::uint32_t>(copy.tokens.size());
    KvScratch scratch = kv_.scratch();
    const bool fits = scratch.fork(parent, length, length + static_cast<std::uint32_t>(grow));
    kv_.fork(parent, child, length);
    model_[child] = std::move(copy);
    REQUIRE(append(child, grow) == fits);
    if (fits) REQUIRE(kv_.available() == scratch.available());
  }

  void slide() {
    const SequenceId seq = any();
    if (raw(seq) == 0) return;
    ModelSequence& model = model_.at(seq);
    const auto next = static_cast<std::uint32_t>(pick(model.tokens.size() + 1));
    const StepId reader{completed_ + pick(4)};
    for (std::size_t g = 0; g < groups(); ++g) {
      const auto seen = static_cast<std::uint32_t>(first_seen(g, next) / block_size() * block_size());
      slides += seen > model.slid[g];
      model.freed[g] = std::max(model.freed[g], seen);
      if (seen <= model.slid[g]) continue;
      for (std::uint32_t i = (model.slid[g] + block_size() - 1) / block_size() * block_size(); i < seen; ++i) {
        const Value value = of_group(kv_values(model.tokens, model.salt)[i], g);
        const BlockId block = kv_.block_table(seq)[at(i, g)];
        if (raw(reader) > completed_) pending_[raw(reader)].push_back({raw(block), i % block_size(), value});
      }
      model.slid[g] = seen;
    }
    kv_.slide(seq, next, reader);
  }

  void swap_out() {
    std::vector<SequenceId> group;
    for (const auto& [seq, model] : model_) {
      if (model.swapped == 0 && !model.borrows && pick(3) == 0) group.push_back(seq);
    }
    const auto before = references();
    KvScratch scratch = kv_.scratch();
    const bool fits = scratch.swap_out(group, StepId{0});
    std::vector<BlockSwap> moves;
    if (!fits) {
      CHECK_THROWS_AS(kv_.swap_out(group, moves, StepId{0}), OutOfMemory);
      REQUIRE(moves.empty());
      return;
    }
    if (group.empty()) return;
    kv_.swap_out(group, moves, StepId{0});
    REQUIRE(kv_.available() == scratch.available());
    ++swapped_groups_;
    std::set<BlockId> moved;
    for (const BlockSwap& move : moves) {
      REQUIRE(moved.insert(move.block).second);  // a shared block moves once
      slots_.at(raw(move.slot)) = memory_.at(raw(move.block));
    }
    const auto after = references();
    for (const auto& [block, count] : before) {
      if (!moved.contains(BlockId{block})) REQUIRE(after.at(block) == count);
    }
    for (const BlockId block : moved) REQUIRE_FALSE(after.contains(raw(block)));
    for (const SequenceId seq : group) model_.at(seq).swapped = swapped_groups_;
    ++swaps;
  }

  void swap_in() {
    const SequenceId one = any_at_all();
    if (raw(one) == 0 || model_.at(one).swapped == 0) return;
    std::vector<SequenceId> group;
    for (const auto& [seq, model] : model_) {
      if (model.swapped == model_.at(one).swapped) group.push_back(seq);
    }
    KvScratch scratch = kv_.scratch();
    std::vector<BlockSwap> moves;
    if (!scratch.swap_in(group)) {
      CHECK_THROWS_AS(kv_.swap_in(group, moves), OutOfMemory);
      return;
    }
    kv_.swap_in(group, moves);
    REQUIRE(kv_.available() == scratch.available());
    for (const BlockSwap& move : moves) memory_.at(raw(move.block)) = slots_.at(raw(move.slot));
    for (const SequenceId seq : group) model_.at(seq).swapped = 0;
  }

  void publish() {
    const SequenceId seq = any();
    if (raw(seq) == 0) return;
    const ModelSequence& model = model_.at(seq);
    const std::size_t computed = pick(4) == 0 ? pick(model.tokens.size() + 1) : model.tokens.size();
    kv_.publish(seq, model.tokens, static_cast<std::uint32_t>(computed), pick(2) == 0);
  }

  void free(SequenceId seq, StepId last_reader) {
    if (!model_.contains(seq)) return;
    const ModelSequence& model = model_.at(seq);
    if (raw(last_reader) > completed_) {
      const std::vector<Value> values = kv_values(model.tokens, model.salt);
      const auto blocks = kv_.block_table(seq);
      auto& reads = pending_[raw(last_reader)];
      for (std::size_t g = 0; g < groups(); ++g) {
        for (std::size_t i = model.slid[g]; i < values.size(); ++i) {
          const BlockId block = blocks[at(i, g)];
          const auto slot = static_cast<std::uint32_t>(i % block_size());
          if (block != kNoBlock) reads.push_back({raw(block), slot, of_group(values[i], g)});
        }
      }
    }
    kv_.free(seq, last_reader);
    model_.erase(seq);
  }

  void complete() {
    completed_ += pick(3);
    for (; !pending_.empty() && pending_.begin()->first <= completed_; pending_.erase(pending_.begin())) {
      for (const PendingRead& read : pending_.begin()->second) {
        REQUIRE(memory_[read.block][read.slot] == read.expected);
      }
    }
    kv_.complete(StepId{completed_});
  }

  /// A whole plan: decided on scratch, then applied.
  void batch() {
    // One that was lent is copied by whoever comes first; scratch counts a copy for each.
    const bool exact = std::ranges::none_of(model_, [](const auto& entry) { return entry.second.borrows; });
    KvScratch scratch = kv_.scratch();
    std::vector<std::pair<SequenceId, StepId>> frees;
    std::vector<std::pair<SequenceId, std::size_t>> appends;
    std::set<SequenceId> touched;
    for (std::uint64_t i = pick(3); i-- > 0;) {
      const SequenceId seq = any();
      if (raw(seq) == 0) break;
      if (!touched.insert(seq).second) continue;
      frees.emplace_back(seq, StepId{completed_ + pick(2)});
      scratch.free(seq, frees.back().second);
    }
    for (std::uint64_t i = pick(6); i-- > 0;) {
      const SequenceId seq = any();
      if (raw(seq) == 0) break;
      if (!touched.insert(seq).second) continue;
      const std::size_t grow = pick(2 * block_size());
      if (!scratch.append(seq, static_cast<std::uint32_t>(model_.at(seq).tokens.size() + grow))) continue;
      // Scheduled, then preempted in the same plan, together with all that share a block with it.
      if (pick(4) == 0 && is_alone(seq) && !model_.at(seq).borrows) {
        scratch.free(seq, StepId{completed_});
        frees.emplace_back(seq, StepId{0});
      } else {
        appends.emplace_back(seq, grow);
      }
    }
    struct Admission {
      SequenceId seq;
      std::vector<TokenId> tokens;
      PrefixMatch match;
      std::size_t grow;
    };
    std::vector<Admission> admissions;
    for (std::uint64_t i = pick(3); i-- > 0;) {
      Admission admission{SequenceId{++last_sequence_}, random_tokens(pick(5 * block_size())), {}, pick(8)};
      admission.match = match(admission.tokens, 0);
      const auto length = static_cast<std::uint32_t>(admission.match.num_tokens + admission.grow);
      if (scratch.create(admission.match, length)) admissions.push_back(std::move(admission));
    }

    for (const Admission& admission : admissions) {
      kv_.create(admission.seq, 0, admission.match);
      add(admission.seq, 0, {admission.tokens.begin(), admission.tokens.begin() + admission.match.num_tokens});
      appends.emplace_back(admission.seq, admission.grow);
    }
    for (const auto& [seq, reader] : frees) free(seq, reader);
    for (const auto& [seq, grow] : appends) {
      std::vector<BlockCopy> copies;
      kv_.reserve(seq, static_cast<std::uint32_t>(model_.at(seq).tokens.size() + grow));
      kv_.append(seq, static_cast<std::uint32_t>(model_.at(seq).tokens.size() + grow), copies, StepId{completed_ + 1});
      execute(copies);
      write(seq, grow, copies.empty());
    }
    REQUIRE((exact ? kv_.available() == scratch.available() : kv_.available() >= scratch.available()));
  }

  bool is_alone(SequenceId seq) const {
    const auto blocks = kv_.block_table(seq);
    return std::ranges::all_of(blocks, [&](BlockId block) { return block == kNoBlock || kv_.references(block) == 1; });
  }

  void misuse() {
    CHECK_THROWS_AS(kv_.free(SequenceId{last_sequence_ + 1}, StepId{0}), InvalidArgument);
    if (model_.empty()) return;
    CHECK_THROWS_AS(kv_.create(any_at_all(), 0, {}), InvalidArgument);
    const auto blocks = kv_.block_table(any_at_all());
    CHECK_THROWS_AS(kv_.create(SequenceId{last_sequence_ + 1}, 9, {{blocks.begin(), blocks.end()}, 0xfffffff0}),
                    InvalidArgument);
    const SequenceId seq = any_at_all();
    if (model_.at(seq).swapped > 0) {
      std::vector<BlockCopy> copies;
      CHECK_THROWS_AS(kv_.append(seq, kv_.length(seq) + 1, copies), InvalidArgument);
      CHECK_THROWS_AS(kv_.publish(seq, model_.at(seq).tokens, 0), InvalidArgument);
    }
    CHECK_THROWS_AS(kv_.fork(seq, SequenceId{last_sequence_ + 1}, kv_.length(seq) + 1), InvalidArgument);
  }

  void verify() {
    kv_.check();
    const KvCacheCounts counts = kv_.counts();
    REQUIRE(counts.free + counts.cached + counts.in_flight + counts.used == counts.total);
    const auto count = references();
    REQUIRE(counts.used == count.size());
    std::uint32_t shared = 0;
    for (const auto& [block, refs] : count) {
      REQUIRE(kv_.references(BlockId{block}) == refs);
      shared += refs > 1;
    }
    REQUIRE(counts.shared == shared);
    for (const auto& [seq, model] : model_) {
      const auto blocks = kv_.block_table(seq);
      REQUIRE(kv_.length(seq) == model.tokens.size());
      const std::size_t slots = blocks.size() / groups() * block_size();
      REQUIRE(slots >= model.tokens.size());
      REQUIRE(slots - model.tokens.size() < block_size());
      const std::vector<Value> values = kv_values(model.tokens, model.salt);
      for (std::size_t g = 0; g < groups(); ++g) {
        for (std::size_t i = first_seen(g, values.size()); i < values.size(); ++i) {
          const BlockId block = blocks[at(i, g)];
          if (block == kNoBlock && model.swapped > 0) continue;  // checked once it is back
          REQUIRE(memory_[raw(block)][i % block_size()] == of_group(values[i], g));
        }
        for (std::size_t i = 0; i + block_size() <= model.freed[g]; i += block_size()) {
          REQUIRE(blocks[at(i, g)] == kNoBlock);
        }
      }
    }
  }

  std::uint32_t block_size() const { return kv_.config().block_size; }

  std::mt19937_64 random_;
  KvCacheManager kv_;
  std::vector<std::uint32_t> windows_;
  std::vector<std::vector<Value>> memory_, slots_;
  int swapped_groups_ = 0;
  std::map<SequenceId, ModelSequence> model_;
  std::map<std::uint64_t, std::vector<PendingRead>> pending_;
  std::uint64_t last_sequence_ = 0, completed_ = 0;
};

}  // namespace

// rule: kv.every-block-in-one-place, kv.references-are-tables, kv.windows-let-go, kv.shared-moves-once
TEST_CASE("random operations keep every invariant and every sequence's contents") {
  constexpr long kOpsPerMachine = 500;
  long hits = 0, partial_hits = 0, copies = 0, refusals = 0, swaps = 0, slides = 0;
  const long machines = run_machines(40000, kOpsPerMachine, [&](long seed) {
    CAPTURE(seed);
    constexpr PrefixHash kHashes[] = {nullptr, constant_hash, poor_hash};
    const std::vector<std::uint32_t> windows[] = {{}, {}, {0, 5}, {7}, {0, 0, 3, 3}, {1, 4}};
    Machine machine(static_cast<std::uint64_t>(seed), {.num_blocks = static_cast<std::uint32_t>(4 + seed % 37),
                                                       .block_size = static_cast<std::uint32_t>(1 + seed % 5),
                                                       .enable_prefix_caching = seed % 7 != 6,
                                                       .prefix_hash = kHashes[seed % 3],
                                                       .windows = windows[seed % 6],
                                                       .num_swap_blocks = static_cast<std::uint32_t>(seed % 4 * 7)});
    for (long op = 0; op < kOpsPerMachine; ++op) {
      CAPTURE(op);
      machine.step();
    }
    hits += machine.hits;
    copies += machine.copies_made;
    refusals += machine.refusals;
    partial_hits += machine.partial_hits;
    swaps += machine.swaps;
    slides += machine.slides;
  });
  if (machines == 0) return;
  // The run was about something.
  CHECK(hits > machines);
  CHECK(copies > machines);
  CHECK(refusals > machines);
  CHECK(partial_hits > machines);
  CHECK(swaps > machines);
  CHECK(slides > machines);
}
