// Steps as messages: what is read is what was written, whatever the steps; damage is noticed; steady decode is small.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <random>

#include "../property_ops.hpp"
#include "comm/frame.hpp"
#include "engine/step_message.hpp"
#include "pagedcore/error.hpp"

using namespace pagedcore;

namespace {

constexpr int kBlockSize = 16;

/// A step in memory of its own.
struct Step {
  StepId step{};
  std::vector<BlockSwap> outs, ins;
  std::vector<BlockCopy> copies;
  std::vector<TokenId> tokens;
  std::vector<TokenRange> ranges;
  std::vector<BlockId> tables;
  std::int32_t groups = 1;
  std::vector<std::int32_t> logit_rows, hidden_rows;

  RankStep content() const {
    return {step, outs, ins, copies, {tokens, ranges, tables, groups}, logit_rows, hidden_rows};
  }
};

bool same(const TokenRange& a, const TokenRange& b) {
  return a.first_row == b.first_row && a.num_rows == b.num_rows && a.first_position == b.first_position &&
         a.table_offset == b.table_offset;
}

bool same(const RankStep& a, const RankStep& b) {
  const auto copies = [](const BlockCopy& x, const BlockCopy& y) {
    return x.src == y.src && x.dst == y.dst && x.num_tokens == y.num_tokens;
  };
  return a.step == b.step && std::ranges::equal(a.swap_outs, b.swap_outs) &&
         std::ranges::equal(a.swap_ins, b.swap_ins) && std::ranges::equal(a.copies, b.copies, copies) &&
         std::ranges::equal(a.batch.tokens, b.batch.tokens) &&
         std::ranges::equal(a.batch.ranges, b.batch.ranges,
                            [](const TokenRange& x, const TokenRange& y) { return same(x, y); }) &&
         std::ranges::equal(a.batch.block_tables, b.batch.block_tables) &&
         a.batch.num_layer_groups == b.batch.num_layer_groups && std::ranges::equal(a.logit_rows, b.logit_rows) &&
         std::ranges::equal(a.hidden_rows, b.hidden_rows);
}

/// Sequences that come, grow, branch, lose blocks to a window and go, as an engine's do.
struct LiveSequences {
  struct Sequence {
    int computed = 0;
    std::vector<std::vector<BlockId>> tables;  // by group
  };

  LiveSequences(std::uint64_t seed, int groups_) : random(seed), groups(groups_) {}
  std::mt19937_64 random;
  int groups;
  std::vector<Sequence> sequences;
  std::uint64_t steps = 0;

  int draw(int below) { return static_cast<int>(random() % static_cast<std::uint64_t>(below)); }
  BlockId any_block() { return BlockId{static_cast<std::uint32_t>(draw(100'000))}; }

  void add(int prompt_blocks) {
    Sequence sequence;
    sequence.computed = prompt_blocks * kBlockSize;
    sequence.tables.resize(static_cast<std::size_t>(groups));
    for (auto& table : sequence.tables)
      for (int i = 0; i < prompt_blocks; ++i) table.push_back(any_block());
    sequences.insert(sequences.begin() + draw(static_cast<int>(sequences.size()) + 1), std::move(sequence));
  }

  void disturb() {
    if (draw(3) == 0) add(draw(4));
    if (draw(5) == 0 && !sequences.empty())
      sequences.erase(sequences.begin() + draw(static_cast<int>(sequences.size())));
    if (draw(6) == 0 && !sequences.empty()) {  // a fork shares blocks
      const Sequence copy = sequences[static_cast<std::size_t>(draw(static_cast<int>(sequences.size())))];
      sequences.push_back(copy);
    }
    if (draw(8) == 0 && sequences.size() > 1) std::swap(sequences.front(), sequences.back());
    for (Sequence& sequence : sequences)
      for (auto& table : sequence.tables)
        if (!table.empty() && draw(10) == 0)
          table[static_cast<std::size_t>(draw(static_cast<int>(table.size())))] = draw(2) == 0 ? kNoBlock : any_block();
  }

  /// Computes one row of most sequences, or a few of some.
  Step next(bool steady) {
    Step step;
    step.step = StepId{++steps};
    step.groups = groups;
    std::vector<std::vector<BlockId>> tables(static_cast<std::size_t>(groups));
    for (Sequence& sequence : sequences) {
      if (!steady && draw(8) == 0) continue;
      const int rows = steady || draw(4) != 0 ? 1 : draw(40);
      TokenRange range{static_cast<std::int32_t>(step.tokens.size()), rows, sequence.computed,
                       static_cast<std::int32_t>(tables[0].size())};
      sequence.computed += rows;
      for (int group = 0; group < groups; ++group) {
        auto& table = sequence.tables[static_cast<std::size_t>(group)];
        while (static_cast<int>(table.size()) * kBlockSize < sequence.computed) table.push_back(any_block());
        tables[static_cast<std::size_t>(group)].insert(tables[static_cast<std::size_t>(group)].end(), table.begin(),
                                                       table.end());
      }
      for (int i = 0; i < rows; ++i) step.tokens.push_back(draw(150'000));
      if (rows > 0 && (steady || draw(5) != 0))
        step.logit_rows.push_back(static_cast<std::int32_t>(step.tokens.size()) - 1);
      if (!steady && rows > 0 && draw(5) == 0) step.hidden_rows.push_back(range.first_row);
      step.ranges.push_back(range);
    }
    for (const auto& table : tables) step.tables.insert(step.tables.end(), table.begin(), table.end());
    for (int i = steady ? 0 : draw(4); i > 0; --i)
      step.copies.push_back({any_block(), any_block(), static_cast<std::uint32_t>(draw(16))});
    for (int i = steady ? 0 : draw(3); i > 0; --i)
      step.outs.push_back({any_block(), SwapSlot{static_cast<std::uint32_t>(draw(1000))}});
    for (int i = steady ? 0 : draw(3); i > 0; --i)
      step.ins.push_back({any_block(), SwapSlot{static_cast<std::uint32_t>(draw(1000))}});
    return step;
  }
};

std::vector<std::byte> copy(std::span<const std::byte> bytes) { return {bytes.begin(), bytes.end()}; }

void renew_check(std::vector<std::byte>& message) {
  const std::uint32_t check = comm::checksum(std::span(message).first(message.size() - sizeof(std::uint32_t)));
  std::memcpy(message.data() + message.size() - sizeof check, &check, sizeof check);
}

}  // namespace

// rule: engine.a-message-is-the-step
TEST_CASE("a rank reads of every step what rank 0 wrote, whatever happens to the sequences") {
  run_machines(6000, 150, [](long seed) {
    LiveSequences engine(static_cast<std::uint64_t>(seed), 1 + static_cast<int>(seed % 3));
    StepWriter writer;
    StepReader reader;
    int wrong = 0;
    for (int i = 0; i < 150; ++i) {
      engine.disturb();
      const Step step = engine.next(false);
      if (engine.draw(20) == 0) writer.start_anew();
      wrong += !same(reader.read(writer.write(step.content())), step.content());
    }
    CAPTURE(seed);
    CHECK(wrong == 0);
  });
}

// rule: engine.steady-messages-are-small
TEST_CASE("the message of a step of 256 sequences in steady decode has less than 8 KB") {
  LiveSequences engine(1, 1);
  for (int i = 0; i < 256; ++i) engine.add(20 + i % 100);
  for (auto& sequence : engine.sequences)
    sequence.computed -= engine.draw(kBlockSize);  // they fill blocks at different steps
  StepWriter writer;
  StepReader reader;
  std::size_t most = 0;
  for (int i = 0; i < 100; ++i) {
    const Step step = engine.next(true);
    const auto message = writer.write(step.content());
    if (i > 0) most = std::max(most, message.size());
    CHECK(same(reader.read(message), step.content()));
  }
  MESSAGE("at most ", most, " bytes");
  CHECK(most < 8 * 1024 / 4);
}

// rule: engine.a-bad-message-is-refused
TEST_CASE("a message that is damaged, lost, repeated or of another version is refused, and a whole one mends it") {
  LiveSequences engine(7, 2);
  for (int i = 0; i < 5; ++i) engine.add(3);
  StepWriter writer;
  StepReader reader;
  Step step = engine.next(true);
  reader.read(writer.write(step.content()));
  step = engine.next(true);
  const std::vector<std::byte> second = copy(writer.write(step.content()));
  for (std::size_t bit = 0; bit < 8 * second.size(); ++bit) {
    StepReader other = reader;
    std::vector<std::byte> wrong = second;
    wrong[bit / 8] ^= static_cast<std::byte>(1u << bit % 8);
    CHECK_THROWS_AS(other.read(wrong), Corrupt);
  }
  for (std::size_t size = 0; size < second.size(); ++size) {
    StepReader other = reader;
    CHECK_THROWS_AS(other.read(std::span(second).first(size)), Corrupt);
  }
  {
    StepReader other;
    CHECK_THROWS_WITH_AS(other.read(second), "the message of a step has number 2 where 1 was expected", Corrupt);
  }
  StepReader late = reader;
  CHECK(same(reader.read(second), step.content()));
  CHECK_THROWS_WITH_AS(reader.read(second), "the message of a step has number 2 where 3 was expected", Corrupt);
  step = engine.next(true);
  const std::vector<std::byte> third = copy(writer.write(step.content()));
  CHECK_THROWS_AS(late.read(third), Corrupt);
  CHECK_THROWS_AS(late.read(second), Corrupt);  // it has lost its place
  writer.start_anew();
  step = engine.next(true);
  CHECK(same(late.read(writer.write(step.content())), step.content()));
  std::vector<std::byte> newer = second;
  newer[0] = std::byte{2};
  renew_check(newer);
  CHECK_THROWS_WITH_AS(
      late.read(newer),
      "the message of a step is of version 2, this rank reads 1; run the same version of pagedcore everywhere",
      Corrupt);
}

TEST_CASE("what a message says is checked, not trusted: with a right check, noise is read or refused") {
  std::mt19937_64 random(3);
  LiveSequences engine(9, 2);
  for (int i = 0; i < 5; ++i) engine.add(2);
  StepWriter writer;
  StepReader reader;
  int refused = 0;
  for (int round = 0; round < 40; ++round) {
    engine.disturb();
    const Step step = engine.next(false);
    const std::vector<std::byte> message = copy(writer.write(step.content()));
    for (int i = 0; i < 300; ++i) {
      StepReader other = reader;
      std::vector<std::byte> noise = message;
      for (int n = 1 + static_cast<int>(random() % 4); n > 0; --n)
        noise[9 + random() % (noise.size() - 9)] = static_cast<std::byte>(random());
      if (random() % 4 == 0) noise.resize(13 + random() % (noise.size() - 12));
      renew_check(noise);
      try {
        const RankStep& content = other.read(noise);
        CHECK(content.batch.block_tables.size() % static_cast<std::size_t>(content.batch.num_layer_groups) == 0);
      } catch (const Corrupt&) {
        ++refused;
      }
    }
    reader.read(message);
  }
  CHECK(refused > 1000);
}

TEST_CASE("a batch whose tables do not lie one behind the other is refused, and the next message is whole") {
  LiveSequences engine(2, 1);
  for (int i = 0; i < 3; ++i) engine.add(2);
  StepWriter writer;
  StepReader reader;
  reader.read(writer.write(engine.next(true).content()));
  Step step = engine.next(true);
  std::swap(step.ranges[0].table_offset, step.ranges[2].table_offset);
  CHECK_THROWS_AS(writer.write(step.content()), InvalidArgument);
  step = engine.next(true);
  step.tokens.pop_back();
  CHECK_THROWS_AS(writer.write(step.content()), InvalidArgument);
  step = engine.next(true);
  CHECK(same(reader.read(writer.write(step.content())), step.content()));
}
