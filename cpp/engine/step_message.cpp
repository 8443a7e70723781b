#include "engine/step_message.hpp"

#include <algorithm>
#include <array>
#include <utility>

#include "base/text.hpp"
#include "comm/bytes.hpp"
#include "comm/frame.hpp"
#include "pagedcore/error.hpp"

// Version, number, step, what moves, then one entry for each range, in order: a byte of flags, what they leave open,
// and its tokens. A range whose tables go on from those of a range of the step before names it; in steady decode that
// is the one behind the last one named, nothing has changed, and a byte says all of it. A check of everything ends the
// message.

namespace pagedcore {
namespace {

using comm::ByteReader;
using comm::ByteWriter;

constexpr std::uint8_t kVersion = 1;
constexpr std::size_t kMostEntries = std::size_t{1} << 28;  // of the tables of a step
constexpr const char* kWhat = "the message of a step";

enum Flag : std::uint8_t {
  kNext = 1,    // the tables of the range behind the one that was named last
  kNew = 2,     // tables of their own
  kOneRow = 4,  // of one row
  kGoesOn = 8,  // at the position behind the last one that the named range computed
  kSame = 16,   // the tables have not changed
  kAllFlags = 31,
};

std::uint64_t code(BlockId block) { return static_cast<std::uint32_t>(raw(block) + 1); }  // kNoBlock becomes 0
BlockId block_of(std::uint64_t code) {
  if (code > 0xffffffffu) throw Corrupt(str(kWhat, " names block ", code, ", which cannot be"));
  return BlockId{static_cast<std::uint32_t>(code) - 1};
}

std::int32_t to_int(std::uint64_t value) {
  if (value > 0x7fffffff) throw Corrupt(str(kWhat, " has the number ", value, " where a row or position is meant"));
  return static_cast<std::int32_t>(value);
}

TokenId read_token(ByteReader& reader) {
  const std::int64_t token = reader.signed_number();
  if (token != static_cast<TokenId>(token)) throw Corrupt(str(kWhat, " has the token ", token, ", which cannot be"));
  return static_cast<TokenId>(token);
}

/// Ascending or not: differences, small where rows follow one another.
void write_rows(ByteWriter& writer, std::span<const std::int32_t> rows) {
  writer.number(rows.size());
  std::int64_t expected = 0;
  for (const std::int32_t row : rows) {
    writer.signed_number(row - expected);
    expected = row + std::int64_t{1};
  }
}
void read_rows(ByteReader& reader, std::vector<std::int32_t>& rows) {
  rows.clear();
  std::int64_t expected = 0;
  for (std::size_t n = reader.count(); n > 0; --n) {
    rows.push_back(to_int(static_cast<std::uint64_t>(reader.signed_number() + expected)));
    expected = rows.back() + std::int64_t{1};
  }
}

void write_swaps(ByteWriter& writer, std::span<const BlockSwap> swaps) {
  writer.number(swaps.size());
  for (const BlockSwap& swap : swaps) {
    writer.number(code(swap.block));
    writer.number(raw(swap.slot));
  }
}
void read_swaps(ByteReader& reader, std::vector<BlockSwap>& swaps) {
  swaps.clear();
  for (std::size_t n = reader.count(2); n > 0; --n) {
    const BlockId block = block_of(reader.number());
    swaps.push_back({block, SwapSlot{static_cast<std::uint32_t>(reader.number())}});
  }
}

/// How two tables differ: the new size, the entries that have changed with the distances between them, those added.
void write_changes(ByteWriter& writer, std::span<const BlockId> before, std::span<const BlockId> now) {
  const std::size_t common = std::min(before.size(), now.size());
  writer.signed_number(static_cast<std::int64_t>(now.size()) - static_cast<std::int64_t>(before.size()));
  std::size_t changed = 0;
  for (std::size_t i = 0; i < common; ++i) changed += before[i] != now[i];
  writer.number(changed);
  std::size_t last = 0;
  for (std::size_t i = 0; i < common; ++i) {
    if (before[i] == now[i]) continue;
    writer.number(i - last);
    writer.number(code(now[i]));
    last = i;
  }
  for (std::size_t i = common; i < now.size(); ++i) writer.number(code(now[i]));
}

/// Appends the table to `now`.
void read_changes(ByteReader& reader, std::span<const BlockId> before, std::vector<BlockId>& now) {
  const std::int64_t size = static_cast<std::int64_t>(before.size()) + reader.signed_number();
  if (size < 0 || size > static_cast<std::int64_t>(before.size() + reader.left()))
    throw Corrupt(str(kWhat, " has a table of ", size, " blocks, which cannot be"));
  const std::size_t common = std::min(before.size(), static_cast<std::size_t>(size)), start = now.size();
  if (now.size() + static_cast<std::size_t>(size) > kMostEntries)
    throw Corrupt(str(kWhat, " has tables of too many blocks"));
  now.insert(now.end(), before.begin(), before.begin() + static_cast<std::ptrdiff_t>(common));
  std::size_t at = 0;
  for (std::size_t n = reader.count(2); n > 0; --n) {
    const std::uint64_t distance = reader.number();
    if (distance >= common - at) throw Corrupt(str(kWhat, " changes a block behind the end of its table"));
    at += static_cast<std::size_t>(distance);
    now[start + at] = block_of(reader.number());
  }
  while (now.size() - start < static_cast<std::size_t>(size)) now.push_back(block_of(reader.number()));
}

/// The range of the step before with whose tables this one's begin: the one behind `last`, else one that has the same
/// first block. `before.ranges.size()` when there is none. Any would be right; the best is found where order is kept.
std::size_t predecessor(const StepTables& before, std::size_t last, std::span<const BlockId> table) {
  const auto fits = [&](std::size_t range) {
    const auto its = before.table(0, range);
    const std::size_t tail = std::min(its.size(), table.size());
    return tail > 0 && its[tail - 1] == table[tail - 1];
  };
  const std::size_t count = before.ranges.size();
  for (std::size_t range = last; range < std::min(last + 32, count); ++range)
    if (fits(range)) return range;
  for (std::size_t range = 0; range < count; ++range)
    if (fits(range)) return range;
  return count;
}

std::int64_t position_after(const TokenRange& range) { return std::int64_t{range.first_position} + range.num_rows; }

bool same_tables(const StepTables& before, std::size_t was, const StepTables& now, std::size_t is) {
  for (std::size_t group = 0; group < now.groups; ++group)
    if (!std::ranges::equal(before.table(group, was), now.table(group, is))) return false;
  return true;
}

void copy_batch(const BatchView& batch, StepTables& to) {
  to.ranges.assign(batch.ranges.begin(), batch.ranges.end());
  to.blocks.assign(batch.block_tables.begin(), batch.block_tables.end());
  to.groups = static_cast<std::size_t>(batch.num_layer_groups);
  std::int64_t row = 0, offset = 0;
  for (const TokenRange& range : to.ranges) {
    if (range.first_row != row || range.num_rows < 0 || range.table_offset < offset)
      throw InvalidArgument(str("a range that begins at row ", range.first_row, " and table entry ", range.table_offset,
                                " does not follow the one before it, which ends at row ", row));
    row += range.num_rows;
    offset = range.table_offset;
  }
  const bool whole = row == static_cast<std::int64_t>(batch.tokens.size()) && to.groups >= 1 &&
                     to.blocks.size() % to.groups == 0 && offset <= static_cast<std::int64_t>(to.entries()) &&
                     (to.ranges.empty() ? to.blocks.empty() : to.ranges[0].table_offset == 0);
  if (!whole) throw InvalidArgument("the ranges of a batch do not cover its tokens and its tables");
}

}  // namespace

std::span<const std::byte> StepWriter::write(const RankStep& step) {
  const std::uint64_t number = std::exchange(number_, 0) + 1;  // begins anew if anything throws
  copy_batch(step.batch, now_);
  if (number == 1 || before_.groups != now_.groups) before_.ranges.clear(), before_.blocks.clear();
  before_.groups = now_.groups;
  message_.clear();
  ByteWriter writer(message_);
  writer.fixed(kVersion);
  writer.fixed(number);
  writer.number(raw(step.step));
  write_swaps(writer, step.swap_outs);
  write_swaps(writer, step.swap_ins);
  writer.number(step.copies.size());
  for (const BlockCopy& copy : step.copies) {
    writer.number(code(copy.src));
    writer.number(code(copy.dst));
    writer.number(copy.num_tokens);
  }
  writer.number(now_.groups);
  writer.number(now_.ranges.size());
  std::size_t next = 0;
  for (std::size_t i = 0; i < now_.ranges.size(); ++i) {
    const TokenRange& range = now_.ranges[i];
    const std::size_t from = predecessor(before_, next, now_.table(0, i));
    const bool known = from < before_.ranges.size();
    const std::int64_t expected = known ? position_after(before_.ranges[from]) : 0;
    const bool same = known && same_tables(before_, from, now_, i);
    writer.fixed(static_cast<std::uint8_t>((known && from == next ? kNext : 0) | (known ? 0 : kNew) |
                                           (range.num_rows == 1 ? kOneRow : 0) |
                                           (range.first_position == expected ? kGoesOn : 0) | (same ? kSame : 0)));
    if (known && from != next) writer.number(from);
    if (known) next = from + 1;
    if (range.num_rows != 1) writer.number(static_cast<std::uint64_t>(range.num_rows));
    if (range.first_position != expected) writer.number(static_cast<std::uint64_t>(range.first_position));
    for (std::size_t group = 0; group < now_.groups && !same; ++group)
      write_changes(writer, known ? before_.table(group, from) : std::span<const BlockId>(), now_.table(group, i));
    for (std::int32_t row = 0; row < range.num_rows; ++row)
      writer.signed_number(step.batch.tokens[static_cast<std::size_t>(range.first_row + row)]);
  }
  write_rows(writer, step.logit_rows);
  write_rows(writer, step.hidden_rows);
  writer.fixed(comm::checksum(message_));
  std::swap(before_, now_);
  number_ = number;
  return message_;
}

const RankStep& StepReader::read(std::span<const std::byte> message) {
  const std::uint64_t number = std::exchange(number_, 0) + 1;  // only a whole one can follow if anything throws
  if (message.size() < sizeof(std::uint32_t)) throw Corrupt(str(kWhat, " has ", message.size(), " bytes"));
  const auto body = message.first(message.size() - sizeof(std::uint32_t));
  ByteReader reader(body, kWhat);
  const auto version = reader.fixed<std::uint8_t>();
  if (version != kVersion)
    throw Corrupt(str(kWhat, " is of version ", int{version}, ", this rank reads ", int{kVersion},
                      "; run the same version of pagedcore everywhere"));
  if (ByteReader(message.last(sizeof(std::uint32_t)), kWhat).fixed<std::uint32_t>() != comm::checksum(body))
    throw Corrupt(str(kWhat, " is damaged: it does not match its check"));
  const auto its = reader.fixed<std::uint64_t>();
  if (its != number && its != 1) throw Corrupt(str(kWhat, " has number ", its, " where ", number, " was expected"));
  content_.step = StepId{reader.number()};
  read_swaps(reader, swap_outs_);
  read_swaps(reader, swap_ins_);
  copies_.clear();
  for (std::size_t n = reader.count(3); n > 0; --n) {
    const BlockId src = block_of(reader.number()), dst = block_of(reader.number());
    copies_.push_back({src, dst, static_cast<std::uint32_t>(reader.number())});
  }
  const std::uint64_t groups = reader.number();
  if (groups < 1 || groups > 1024) throw Corrupt(str(kWhat, " has tables of ", groups, " layer groups"));
  if (its == 1 || before_.groups != groups) before_.ranges.clear(), before_.blocks.clear();
  before_.groups = now_.groups = static_cast<std::size_t>(groups);
  now_.ranges.clear();
  tokens_.clear();
  tables_.resize(std::max(tables_.size(), now_.groups));
  for (auto& table : tables_) table.clear();
  std::size_t next = 0;
  for (std::size_t n = reader.count(); n > 0; --n) {
    const auto flags = reader.fixed<std::uint8_t>();
    const bool known = (flags & kNew) == 0;
    if ((flags & ~kAllFlags) != 0 || (!known && (flags & (kNext | kSame)) != 0))
      throw Corrupt(str(kWhat, " has the unknown flags ", int{flags}));
    std::size_t from = next;
    if (known && (flags & kNext) == 0) from = static_cast<std::size_t>(reader.number());
    if (known && from >= before_.ranges.size()) throw Corrupt(str(kWhat, " refers to range ", from, ", which was not"));
    if (known) next = from + 1;
    TokenRange range;
    range.first_row = to_int(tokens_.size());
    range.num_rows = (flags & kOneRow) != 0 ? 1 : to_int(reader.number());
    const std::int64_t expected = known ? position_after(before_.ranges[from]) : 0;
    range.first_position = to_int((flags & kGoesOn) != 0 ? static_cast<std::uint64_t>(expected) : reader.number());
    range.table_offset = to_int(tables_[0].size());
    for (std::size_t group = 0; group < now_.groups; ++group) {
      const auto before = known ? before_.table(group, from) : std::span<const BlockId>();
      if ((flags & kSame) != 0)
        tables_[group].insert(tables_[group].end(), before.begin(), before.end());
      else
        read_changes(reader, before, tables_[group]);
      if (tables_[group].size() != tables_[0].size())
        throw Corrupt(str(kWhat, " has groups with tables of different sizes"));
      if (tables_[group].size() > kMostEntries) throw Corrupt(str(kWhat, " has tables of too many blocks"));
    }
    if (static_cast<std::size_t>(range.num_rows) > reader.left()) throw Corrupt(str(kWhat, " ends within its tokens"));
    for (std::int32_t row = 0; row < range.num_rows; ++row) tokens_.push_back(read_token(reader));
    now_.ranges.push_back(range);
  }
  now_.blocks.clear();
  for (std::size_t group = 0; group < now_.groups; ++group)
    now_.blocks.insert(now_.blocks.end(), tables_[group].begin(), tables_[group].end());
  read_rows(reader, logit_rows_);
  read_rows(reader, hidden_rows_);
  reader.end();
  std::swap(before_, now_);
  content_ = {content_.step,
              swap_outs_,
              swap_ins_,
              copies_,
              {tokens_, before_.ranges, before_.blocks, static_cast<std::int32_t>(before_.groups)},
              logit_rows_,
              hidden_rows_};
  number_ = its;
  return content_;
}

}  // namespace pagedcore
