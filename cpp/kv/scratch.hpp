// KvScratch for paged allocation: what the counts would be after some operations, in memory proportional to what they
// touch.
#pragma once

#include <cstdint>
#include <span>

#include "kv/flat_map.hpp"
#include "kv/paged.hpp"

namespace pagedcore::kv {

class PagedScratch final : public Scratch {
 public:
  explicit PagedScratch(const PagedCache& cache) : Scratch(cache), kv_(cache), slots_(cache.swap.available()) {}

  bool append(SequenceId seq, std::uint32_t length) override;
  bool create(const PrefixMatch& match, std::uint32_t length, std::uint64_t spare, const KvGroup& group) override;
  bool fork(SequenceId parent, std::uint32_t num_tokens, std::uint32_t length, std::uint64_t spare) override;
  void free(SequenceId seq, StepId last_reader) override;
  bool swap_out(std::span<const SequenceId> group, StepId last_reader) override;
  bool swap_in(std::span<const SequenceId> group, std::uint64_t spare) override;

 private:
  /// A sequence that took or gave up blocks here: the first `kept` logical blocks of its table, then `taken` new ones
  /// of its own.
  struct Table {
    std::uint32_t kept = 0;
    std::uint32_t taken = 0;
    bool freed = false;
  };
  /// A block whose references differ here.
  struct Block {
    std::uint32_t references = 0;
    std::uint32_t borrows = 0;  // of them; never made here, but given back
    bool available = false;     // with no references: counted in `available`
    bool fenced = false;        // some release waits for a step in flight
    bool withdrawn = false;     // leaves the prefix index: its last holder is going to write to it
  };

  std::uint32_t holders(BlockId block) const;
  std::uint32_t references(BlockId block) const;
  Block& touch(BlockId block);
  void hold(BlockId id);
  void release(BlockId id, StepId last_reader);
  Table table(const BlockTable& real) const;

  const PagedCache& kv_;
  std::uint32_t slots_;
  FlatMap<Table> tables_;
  FlatMap<Block> blocks_;
};

}  // namespace pagedcore::kv
