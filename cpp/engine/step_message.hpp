// A step as one message: what rank 0 tells ranks that are processes. Both sides keep the tables of the step before, and
// the message says what has changed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "engine/rank_runner.hpp"
#include "pagedcore/backend.hpp"
#include "pagedcore/types.hpp"

namespace pagedcore {

/// The tables of a step, with their order: what the next message refers to.
struct StepTables {
  std::vector<TokenRange> ranges;
  std::vector<BlockId> blocks;  // [groups][entries]
  std::size_t groups = 0;

  std::size_t entries() const noexcept { return groups == 0 ? 0 : blocks.size() / groups; }
  std::size_t size_of(std::size_t range) const noexcept {
    const std::size_t end =
        range + 1 < ranges.size() ? static_cast<std::size_t>(ranges[range + 1].table_offset) : entries();
    return end - static_cast<std::size_t>(ranges[range].table_offset);
  }
  std::span<const BlockId> table(std::size_t group, std::size_t range) const {
    return std::span(blocks).subspan(group * entries() + static_cast<std::size_t>(ranges[range].table_offset),
                                     size_of(range));
  }
};

/// Rank 0's side. One thread at a time.
class StepWriter {
 public:
  /// The message, valid until the next call. Throws InvalidArgument when the tables do not lie one behind the other;
  /// the next message is whole then.
  std::span<const std::byte> write(const RankStep& step);
  /// The next message refers to none before it: ranks have missed one, or are new. Numbers begin again at 1.
  void start_anew() noexcept { number_ = 0; }

 private:
  std::uint64_t number_ = 0;
  StepTables before_, now_;
  std::vector<std::byte> message_;
};

/// The other side. One thread at a time.
class StepReader {
 public:
  /// What the writer was given, in memory of the reader's, valid until the next call. Throws Corrupt for a message that
  /// is damaged, of another version, or not the next one; only a whole one, number 1, can follow then.
  const RankStep& read(std::span<const std::byte> message);

 private:
  std::uint64_t number_ = 0;
  StepTables before_, now_;
  std::vector<std::vector<BlockId>> tables_;  // by group, on their way
  std::vector<TokenId> tokens_;
  std::vector<BlockSwap> swap_outs_, swap_ins_;
  std::vector<BlockCopy> copies_;
  std::vector<std::int32_t> logit_rows_, hidden_rows_;
  RankStep content_;
};

}  // namespace pagedcore
