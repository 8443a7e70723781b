// Numbers of a scale and a code, as the quantized checkpoints of others hold them, to f32 or to blocks of our own.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/text.hpp"
#include "pagedcore/error.hpp"
#include "pagedcore/recoded.hpp"
#include "tensor/float16.hpp"
#include "tensor/lazy_bytes.hpp"

namespace pagedcore {
namespace {

using Codes = CodedMatrix::Codes;

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

/// Codes in a word, as a power of two.
int shift_of(const CodePlaces& p) { return !p.words ? 0 : p.bits == 8 ? 2 : p.bits == 4 ? 3 : 4; }

/// Reads codes of CodePlaces from its bytes in memory.
class CodeReader {
 public:
  CodeReader(const CodePlaces& places, const std::vector<std::byte>& bytes)
      : p_(places), bytes_(bytes.data()), shift_(shift_of(places)), mask_((1u << places.bits) - 1u) {}

  std::uint32_t operator()(std::int64_t row, std::int64_t column) const {
    const std::int64_t i = p_.along_rows ? row >> shift_ : row, j = p_.along_rows ? column : column >> shift_;
    const std::int64_t at = i * p_.row_step + j * p_.column_step;
    if (!p_.words) return static_cast<std::uint8_t>(bytes_[at]);
    auto inside = static_cast<std::size_t>(p_.along_rows ? row : column) & ((std::size_t{1} << shift_) - 1);
    if (!p_.order.empty()) inside = static_cast<std::size_t>(p_.order[inside]);
    std::uint32_t word;
    std::memcpy(&word, bytes_ + at * 4, sizeof word);
    return word >> (inside * static_cast<std::size_t>(p_.bits)) & mask_;
  }

 private:
  const CodePlaces& p_;
  const std::byte* bytes_;
  int shift_;
  std::uint32_t mask_;
};

/// Of `rows` x `columns` codes: whether they lie inside.
void check_places(const std::string& name, const char* what, const CodePlaces& p, std::int64_t rows,
                  std::int64_t columns) {
  const bool fits = p.words ? p.bits == 2 || p.bits == 4 || p.bits == 8 : p.bits == 8;
  const std::int64_t per = p.words ? 32 / p.bits : 1;
  if (!fits || p.row_step < 0 || p.column_step < 0 || (!p.order.empty() && std::ssize(p.order) != per))
    throw InvalidArgument(str(name, ": ", what, " of ", p.bits, " bits cannot be read"));
  for (const std::int32_t place : p.order)
    if (place < 0 || place >= per) throw InvalidArgument(str(name, ": ", what, " in an order that is none"));
  const std::int64_t i = p.along_rows ? ceil_div(rows, per) : rows, j = p.along_rows ? columns : ceil_div(columns, per);
  const std::int64_t end = (i - 1) * p.row_step + (j - 1) * p.column_step + 1;
  if (static_cast<std::uint64_t>(end) * (p.words ? 4 : 1) > p.from.size_bytes())
    throw InvalidArgument(
        str(name, ": ", what, " end at number ", end, ", beyond the ", p.from.size_bytes(), " bytes there are"));
}

class Coded final : public ByteSource {
 public:
  Coded(CodedMatrix matrix, DType dtype)
      : m_(std::move(matrix)),
        dtype_(dtype),
        block_(info(dtype).block_elements),
        kept_({m_.codes.from, m_.scales, m_.zeros.from}, bytes_of(dtype, m_.rows * m_.columns)) {}

  void read(std::uint64_t offset, std::span<std::byte> out) const override {
    const auto parts = kept_.get();
    const std::size_t size = info(dtype_).block_bytes;
    const std::int64_t blocks = m_.columns / block_;  // of a row
    const Source s{CodeReader(m_.codes, (*parts)[0]), CodeReader(m_.zeros, (*parts)[2]), (*parts)[1].data()};
    const std::size_t all = out.size();
    while (!out.empty()) {
      const auto index = static_cast<std::int64_t>(offset / size);
      const std::size_t at = offset % size;
      const std::int64_t row = index / blocks, first = index % blocks;
      if (at == 0 && out.size() >= size) {
        const auto whole = std::min<std::int64_t>(blocks - first, static_cast<std::int64_t>(out.size() / size));
        make(s, row, first, whole, out.data());
        out = out.subspan(static_cast<std::size_t>(whole) * size);
        offset += static_cast<std::uint64_t>(whole) * size;
        continue;
      }
      std::byte block[256];
      make(s, row, first, 1, block);
      const std::size_t count = std::min(size - at, out.size());
      std::memcpy(out.data(), block + at, count);
      out = out.subspan(count);
      offset += count;
    }
    kept_.done(all);
  }

 private:
  struct Source {
    CodeReader codes, zeros;
    const std::byte* scales;
  };

  std::int64_t group_of(std::int64_t column) const {
    return m_.groups.empty() ? column / m_.group_columns : m_.groups[static_cast<std::size_t>(column)];
  }
  double scale(const Source& s, std::int64_t row, std::int64_t group) const {
    const std::int64_t at = row / m_.group_rows * m_.scale_row_step + group * m_.scale_column_step;
    float value;
    if (m_.scales.dtype == DType::f32) {
      std::memcpy(&value, s.scales + at * 4, sizeof value);
    } else {
      std::uint16_t bits;
      std::memcpy(&bits, s.scales + at * 2, sizeof bits);
      value = m_.scales.dtype == DType::bf16 ? bf16_to_f32(bits) : f16_to_f32(bits);
    }
    if (!std::isfinite(value))
      throw Corrupt(str(m_.name, ": the scale of row ", row, ", group ", group, " is not finite"));
    return m_.scale_factor * value;
  }
  std::int32_t zero(const Source& s, std::int64_t row, std::int64_t group) const {
    const auto code = m_.zeros.from.size_bytes() == 0 ? 0 : static_cast<std::int32_t>(s.zeros(row, group));
    return code + m_.zero_offset;
  }
  std::uint32_t code(const Source& s, std::int64_t row, std::int64_t column) const {
    const std::uint32_t code = s.codes(row, column);
    if (m_.kind == Codes::e4m3 && (code & 0x7f) == 0x7f)
      throw Corrupt(str(m_.name, ": the number at row ", row, ", column ", column, " is NaN"));
    return code;
  }
  std::int32_t number(std::uint32_t code) const {
    return m_.is_signed ? static_cast<std::int8_t>(code) : static_cast<std::int32_t>(code);
  }

  void make(const Source& s, std::int64_t row, std::int64_t first, std::int64_t count, std::byte* out) const {
    if (dtype_ == DType::f32) return make_numbers(s, row, first, count, out);
    for (std::int64_t b = first; b < first + count; ++b, out += info(dtype_).block_bytes) make_block(s, row, b, out);
  }
  void make_numbers(const Source& s, std::int64_t row, std::int64_t first, std::int64_t count, std::byte* out) const {
    double of_group = 0.0;
    std::int32_t its_zero = 0;
    for (std::int64_t column = first, last = -1; column < first + count; ++column, out += 4) {
      if (const std::int64_t group = group_of(column); group != last) {
        of_group = scale(s, row, group);
        its_zero = m_.kind == Codes::integer ? zero(s, row, group) : 0;
        last = group;
      }
      const std::uint32_t c = code(s, row, column);
      double value = 0.0;
      switch (m_.kind) {
        case Codes::integer:
          value = number(c) - its_zero;
          break;
        case Codes::e4m3:
          value = f8_e4m3_to_f32(static_cast<std::uint8_t>(c));
          break;
        case Codes::table:
          value = m_.table[c];
          break;
      }
      const auto rounded = static_cast<float>(of_group * value);
      std::memcpy(out, &rounded, sizeof rounded);
    }
  }
  /// A block lies within one group.
  void make_block(const Source& s, std::int64_t row, std::int64_t index, std::byte* out) const {
    const std::int64_t first = index * block_, group = group_of(first);
    const auto its_scale = static_cast<float>(scale(s, row, group));
    std::memcpy(out, &its_scale, sizeof its_scale);
    out += sizeof its_scale;
    if (dtype_ == DType::f8_g128) {
      for (std::int64_t i = 0; i < block_; ++i) out[i] = static_cast<std::byte>(code(s, row, first + i));
      return;
    }
    // Codes of eight bits without a sign are moved to where they have one, and their zero with them.
    const bool bytes = dtype_ == DType::int8_g128;
    const std::int32_t moved = bytes && !m_.is_signed ? 128 : 0;
    const std::uint16_t its_zero = f16_of(zero(s, row, group) - moved);
    std::memcpy(out, &its_zero, sizeof its_zero);
    out += sizeof its_zero;
    for (std::int64_t i = 0; i < block_; ++i) {
      const std::uint32_t c = code(s, row, first + i);
      if (bytes)
        out[i] = static_cast<std::byte>(number(c) - moved);
      else
        out[i / 2] = i % 2 == 0 ? static_cast<std::byte>(c) : out[i / 2] | static_cast<std::byte>(c << 4);
    }
  }
  /// Of an integer of at most 11 bits.
  static std::uint16_t f16_of(std::int32_t value) {
    if (value == 0) return 0;
    const auto magnitude = static_cast<std::uint32_t>(value < 0 ? -value : value);
    int exponent = 0;
    while (magnitude >> (exponent + 1) != 0) ++exponent;
    const std::uint32_t mantissa = magnitude << (10 - exponent) & 0x3ffu;
    return static_cast<std::uint16_t>((value < 0 ? 0x8000u : 0u) | static_cast<std::uint32_t>(exponent + 15) << 10 |
                                      mantissa);
  }

  CodedMatrix m_;
  DType dtype_;
  std::int64_t block_;
  LazyBytes kept_;
};

}  // namespace

std::unique_ptr<ByteSource> recode(CodedMatrix m, DType dtype) {
  constexpr std::int64_t most = std::int64_t{1} << 40;
  if (m.rows < 1 || m.columns < 1 || m.rows > most / m.columns || m.group_rows < 1 || m.group_columns < 1)
    throw InvalidArgument(str(m.name, ": [", m.rows, ", ", m.columns, "] in groups of [", m.group_rows, ", ",
                              m.group_columns, "] cannot be recoded"));
  const std::int64_t block = info(dtype).block_elements;
  const bool four = dtype == DType::int4_g32 || dtype == DType::int4_g128;
  const bool known = dtype == DType::f32 || (four && m.codes.bits <= 4 && m.kind == Codes::integer) ||
                     (dtype == DType::int8_g128 && m.kind == Codes::integer) ||
                     (dtype == DType::f8_g128 && m.kind == Codes::e4m3);
  const bool whole = m.columns % block == 0 && (block == 1 || (m.groups.empty() && m.group_columns % block == 0));
  if (!known || !whole)
    throw InvalidArgument(str(m.name, ": codes in groups of ", m.group_columns, " of ", m.columns,
                              " columns do not fit ", info(dtype).name));
  check_places(m.name, "codes", m.codes, m.rows, m.columns);
  std::int64_t groups = ceil_div(m.columns, m.group_columns);
  if (!m.groups.empty()) {
    if (std::ssize(m.groups) != m.columns)
      throw InvalidArgument(str(m.name, ": ", m.groups.size(), " groups for ", m.columns, " columns"));
    const auto [least, largest] = std::ranges::minmax(m.groups);
    if (least < 0) throw InvalidArgument(str(m.name, ": a column in group ", least));
    groups = std::int64_t{largest} + 1;
  }
  if (m.kind == Codes::table && m.table.size() != std::size_t{1} << m.codes.bits)
    throw InvalidArgument(
        str(m.name, ": a table of ", m.table.size(), " numbers for codes of ", m.codes.bits, " bits"));
  if (m.zeros.from.size_bytes() > 0) check_places(m.name, "zeros", m.zeros, m.rows, groups);
  if (m.scales.dtype != DType::f32 && m.scales.dtype != DType::f16 && m.scales.dtype != DType::bf16)
    throw InvalidArgument(str(m.name, ": scales are ", info(m.scales.dtype).name, "; f32, f16 and bf16 are read"));
  const std::int64_t last =
      (ceil_div(m.rows, m.group_rows) - 1) * m.scale_row_step + (groups - 1) * m.scale_column_step;
  if (m.scale_row_step < 0 || m.scale_column_step < 0 || last >= m.scales.count())
    throw InvalidArgument(str(m.name, ": scale ", last, " of ", m.scales.count()));
  return std::make_unique<Coded>(std::move(m), dtype);
}

}  // namespace pagedcore
