// Bytes that only change places: elements picked from a tensor, and blocks of mxfp4 put together.
#include "pagedcore/recoded.hpp"

#include <algorithm>
#include <cstring>

#include "base/text.hpp"
#include "pagedcore/error.hpp"
#include "tensor/lazy_bytes.hpp"

namespace pagedcore {
namespace {

class Picked final : public ByteSource {
 public:
  Picked(const HostTensor& from, const Picks& picks)
      : from_(from),
        p_(picks),
        row_(static_cast<std::size_t>(picks.columns * picks.bytes)),
        kept_({from}, row_ * static_cast<std::size_t>(picks.rows)) {}

  void read(std::uint64_t offset, std::span<std::byte> out) const override {
    // Whole rows of the tensor are read where they lie; scattered elements from memory.
    const auto parts = p_.columns == 1 ? nullptr : kept_.get();
    const std::size_t all = out.size();
    while (!out.empty()) {
      const std::size_t row = offset / row_, at = offset % row_, count = std::min(row_ - at, out.size());
      copy_row(parts == nullptr ? nullptr : parts->front().data(), static_cast<std::int64_t>(row), at,
               out.first(count));
      out = out.subspan(count);
      offset += count;
    }
    if (parts != nullptr) kept_.done(all);
  }

 private:
  void copy_row(const std::byte* kept, std::int64_t row, std::size_t at, std::span<std::byte> out) const {
    const std::int64_t first = p_.first + row * p_.row_step;
    if (kept == nullptr) return read_bytes(from_, static_cast<std::size_t>(first) + at, out);
    const auto size = static_cast<std::size_t>(p_.bytes);
    for (std::size_t done = 0; done < out.size();) {
      const std::size_t column = (at + done) / size, inside = (at + done) % size;
      const std::size_t count = std::min(size - inside, out.size() - done);
      const std::int64_t from = first + static_cast<std::int64_t>(column) * p_.column_step;
      std::memcpy(out.data() + done, kept + from + inside, count);
      done += count;
    }
  }

  HostTensor from_;
  Picks p_;
  std::size_t row_;
  LazyBytes kept_;
};

class Mxfp4 final : public ByteSource {
 public:
  Mxfp4(const HostTensor& numbers, const HostTensor& exponents, std::string name)
      : numbers_(numbers), exponents_(exponents), name_(std::move(name)) {}

  void read(std::uint64_t offset, std::span<std::byte> out) const override {
    constexpr std::size_t kBlock = 17, kNumbers = 16;
    const std::size_t first = offset / kBlock, count = (offset + out.size() + kBlock - 1) / kBlock - first;
    std::vector<std::byte> numbers(count * kNumbers), exponents(count), blocks(count * kBlock);
    read_bytes(numbers_, first * kNumbers, numbers);
    read_bytes(exponents_, first, exponents);
    for (std::size_t b = 0; b < count; ++b) {
      if (exponents[b] == std::byte{255})
        throw Corrupt(str(name_, ": the scale of block ", first + b, " is 255, which stands for NaN"));
      std::byte* const to = blocks.data() + b * kBlock;
      const std::byte* const from = numbers.data() + b * kNumbers;
      to[0] = exponents[b];
      for (std::size_t j = 0; j < kNumbers; ++j) {  // numbers j and j + 16
        const auto nibble = [&](std::size_t i) { return (from[i / 2] >> (4 * (i % 2))) & std::byte{15}; };
        to[1 + j] = nibble(j) | nibble(j + kNumbers) << 4;
      }
    }
    std::memcpy(out.data(), blocks.data() + (offset - first * kBlock), out.size());
  }

 private:
  HostTensor numbers_, exponents_;
  std::string name_;
};

}  // namespace

std::unique_ptr<ByteSource> pick(const HostTensor& from, const Picks& p) {
  constexpr std::int64_t most = std::int64_t{1} << 48;
  for (const std::int64_t value : {p.rows, p.columns, p.bytes, p.first + 1, p.row_step + 1, p.column_step + 1})
    if (value < 1 || value > most) throw InvalidArgument(str("pick: an extent or step of ", value));
  if (p.rows > most / p.columns / p.bytes || p.row_step > most / p.rows || p.column_step > most / p.columns)
    throw InvalidArgument("pick: extents and steps overflow");
  const std::int64_t end = p.first + (p.rows - 1) * p.row_step + (p.columns - 1) * p.column_step + p.bytes;
  if (static_cast<std::uint64_t>(end) > from.size_bytes())
    throw InvalidArgument(str("pick: an element ends at byte ", end, " of ", from.size_bytes()));
  return std::make_unique<Picked>(from, p);
}

std::unique_ptr<ByteSource> mxfp4_blocks(const HostTensor& numbers, const HostTensor& exponents,
                                         const std::string& name) {
  if (numbers.size_bytes() != 16 * exponents.size_bytes())
    throw InvalidArgument(str(name, ": ", numbers.size_bytes(), " bytes of numbers do not fit ", exponents.size_bytes(),
                              " scales, one for 16 bytes"));
  return std::make_unique<Mxfp4>(numbers, exponents, name);
}

}  // namespace pagedcore
