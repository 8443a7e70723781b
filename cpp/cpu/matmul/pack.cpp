// From host tensors of any type to panels and, for embeddings, back.
#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <exception>
#include <vector>

#include "backend/checks.hpp"
#include "base/text.hpp"
#include "cpu/matmul/layout.hpp"
#include "cpu/matmul/matmul.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore::cpu {
namespace {

constexpr std::int64_t kChunk = 256;  // k converted at a time: a whole number of blocks of every weight type
constexpr std::int64_t kMaxColumns = 32;

std::uint16_t to_bf16(float x) {
  std::uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  if (x != x) return static_cast<std::uint16_t>(bits >> 16 | 0x40u);
  return static_cast<std::uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

float from_bf16(std::uint16_t x) {
  const std::uint32_t bits = static_cast<std::uint32_t>(x) << 16;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

struct SourceRow {
  const HostTensor* tensor = nullptr;  // null: padding
  std::int64_t row = 0;
};

/// The row of the parts that column `column` of panel `panel` holds.
SourceRow source_of(std::span<const HostTensor> parts, PackKind kind, int lanes, std::int64_t panel, int column) {
  if (kind == PackKind::gated) {
    const HostTensor& part = parts[column < lanes ? 0 : 1];
    const std::int64_t row = panel * lanes + column % lanes;
    return row < part.rows() ? SourceRow{&part, row} : SourceRow{};
  }
  std::int64_t row = panel * 2 * lanes + column;
  for (const HostTensor& part : parts) {
    if (row < part.rows()) return {&part, row};
    row -= part.rows();
  }
  return {};
}

/// Most bytes that a thread reads from a file before it packs them; at least kMaxColumns chunks of the widest type.
constexpr std::size_t kStaged = std::size_t{1} << 20;
static_assert(kStaged >= kMaxColumns * kChunk * sizeof(double));

bool is_in_file(std::span<const HostTensor> parts) {
  return std::any_of(parts.begin(), parts.end(), [](const HostTensor& part) { return part.source != nullptr; });
}

/// Most bytes that `width` columns of a panel's rows take in a file.
std::size_t panel_bytes(std::span<const HostTensor> parts, std::int64_t width) {
  std::size_t bytes = 0;
  for (const HostTensor& part : parts) bytes = std::max(bytes, bytes_of(part.dtype, width));
  return bytes * kMaxColumns;
}

/// How many columns of k fit the staging memory for all rows of a panel: whole rows, or whole chunks of them.
std::int64_t staged_width(std::span<const HostTensor> parts, std::int64_t k) {
  if (panel_bytes(parts, k) <= kStaged) return k;
  return static_cast<std::int64_t>(kStaged / panel_bytes(parts, kChunk)) * kChunk;
}

/// The rows of a panel, `count` elements of each from `first` on, in memory: those of files are read into `staging`.
/// Whole rows that follow each other in a file are read at once.
void stage(std::span<SourceRow> rows, std::int64_t k, std::int64_t first, std::int64_t count,
           std::span<std::byte> staging, std::span<HostTensor> staged) {
  for (std::size_t c = 0; c < rows.size();) {
    const SourceRow& head = rows[c];
    std::size_t run = 1;
    if (head.tensor == nullptr) {
      staged[c] = {DType::f32, {0}, 1};
    } else {
      const std::size_t bytes = bytes_of(head.tensor->dtype, count);
      const std::size_t at = bytes_of(head.tensor->dtype, head.row * k + first);
      while (count == k && c + run < rows.size() && rows[c + run].tensor == head.tensor &&
             rows[c + run].row == head.row + static_cast<std::int64_t>(run))
        ++run;
      std::span<const std::byte> data = head.tensor->data;
      if (head.tensor->source != nullptr) {
        read_bytes(*head.tensor, at, staging.first(run * bytes));
        data = staging.first(run * bytes);
        staging = staging.subspan(run * bytes);
      } else {
        data = data.subspan(at, run * bytes);
      }
      for (std::size_t i = 0; i < run; ++i)
        staged[c + i] = {head.tensor->dtype, {count}, 1, data.subspan(i * bytes, bytes)};
    }
    c += run;
  }
}

constexpr std::int64_t kStride = kChunk + 16;  // of a chunk's columns; no power of two: they would share cache sets

/// Writes `count` elements of each of `columns` columns, `stride` apart, from the panel's place `at` along k on.
void put(const float* chunk, std::int64_t stride, int columns, std::int64_t count, std::int64_t at, DType dtype,
         std::byte* panel) {
  if (dtype == DType::f32) {
    float* out = reinterpret_cast<float*>(panel) + at * columns;
    for (std::int64_t i = 0; i < count; ++i)
      for (int c = 0; c < columns; ++c) *out++ = chunk[c * stride + i];
    return;
  }
  auto* const out = reinterpret_cast<std::uint16_t*>(panel);
  for (std::int64_t i = 0; i < count; ++i, ++at) {
    std::uint16_t* pairs = out + at / 2 * columns * 2;
    if (at % 2 == 0 && i + 1 < count) {
      for (int c = 0; c < columns; ++c, pairs += 2) {
        pairs[0] = to_bf16(chunk[c * stride + i]);
        pairs[1] = to_bf16(chunk[c * stride + i + 1]);
      }
      ++i, ++at;
    } else {
      for (int c = 0; c < columns; ++c) pairs[2 * c + at % 2] = to_bf16(chunk[c * stride + i]);
    }
  }
}

/// Writes columns [first, first + count) of k, a chunk of `source`, where their leaves lie, and zeros behind each leaf
/// that ends with them.
void put_chunk(const PackedWeight& weight, const float* chunk, std::int64_t first, std::int64_t count,
               std::byte* panel) {
  const int columns = 2 * weight.kernel().lanes;
  static constexpr float kZeros[32]{};  // at least k_multiple
  MatmulLeaf before;
  for (const MatmulLeaf& leaf : weight.layout().leaves) {
    const std::int64_t from = std::max(first, before.k_end), to = std::min(first + count, leaf.k_end);
    if (from < to) {
      const std::int64_t at = before.padded_end + from - before.k_end, end = at + to - from;
      put(chunk + (from - first), kStride, columns, to - from, at, weight.dtype(), panel);
      if (to == leaf.k_end) put(kZeros, 0, columns, leaf.padded_end - end, end, weight.dtype(), panel);
    }
    before = leaf;
  }
}

/// The rows of one panel, in memory, as many columns of k at a time as fit.
class Rows {
 public:
  Rows(std::span<const HostTensor> parts, const PackedWeight& weight, std::int64_t panel, std::span<std::byte> staging)
      : k_(weight.k()), width_(staging.empty() ? k_ : staged_width(parts, k_)), staging_(staging) {
    const int lanes = weight.kernel().lanes;
    columns_ = static_cast<std::size_t>(2 * lanes);
    for (int c = 0; c < 2 * lanes; ++c)
      rows_[static_cast<std::size_t>(c)] = source_of(parts, weight.kind(), lanes, panel, c);
  }

  /// Columns [first, first + n) of k of every row, where n is at most `count`, which it is unless they end where the
  /// staged ones do. `first` is where the last call ended.
  std::int64_t take(std::int64_t first, std::int64_t count) {
    if (first >= end_) {
      begin_ = first;
      end_ = std::min(first + width_, k_);
      stage(std::span(rows_).first(columns_), k_, begin_, end_ - begin_, staging_, staged_);
    }
    first_ = first;
    return std::min(count, end_ - first);
  }
  bool is_padding(int column) const { return rows_[static_cast<std::size_t>(column)].tensor == nullptr; }
  bool has_blocks(int column, const NativeFormat& format) const { return at(column).dtype == format.dtype; }
  /// From `first` on, of those that were taken.
  void numbers(int column, std::int64_t first, std::span<float> out) const {
    to_f32(at(column), first_ - begin_ + first, out);
  }
  const std::byte* blocks(int column) const {
    return at(column).data.data() + bytes_of(at(column).dtype, first_ - begin_);
  }

 private:
  const HostTensor& at(int column) const { return staged_[static_cast<std::size_t>(column)]; }

  std::int64_t k_, width_;
  std::span<std::byte> staging_;
  std::size_t columns_ = 0;
  std::array<SourceRow, kMaxColumns> rows_;
  std::array<HostTensor, kMaxColumns> staged_;
  std::int64_t begin_ = 0, end_ = 0, first_ = 0;
};

void pack_dense(Rows& rows, PackedWeight& weight, std::int64_t panel) {
  const int columns = 2 * weight.kernel().lanes;
  alignas(64) float chunk[kMaxColumns * kStride];
  for (std::int64_t first = 0, count = 0; first < weight.k(); first += count) {
    count = rows.take(first, std::min(kChunk, weight.k() - first));
    for (int c = 0; c < columns; ++c) {
      const std::span<float> row(chunk + c * kStride, static_cast<std::size_t>(count));
      if (rows.is_padding(c))
        std::ranges::fill(row, 0.0f);
      else
        rows.numbers(c, 0, row);
    }
    put_chunk(weight, chunk, first, count, weight.panel(panel));
  }
}

void pack_native(Rows& rows, PackedWeight& weight, std::int64_t panel) {
  const PanelRun& run = weight.layout().run_of(panel);
  const NativeFormat& format = *run.format;
  const int lanes = weight.kernel().lanes;
  const CodeOrder order = run.integer                     ? CodeOrder::integer
                          : weight.dtype() == DType::bf16 ? CodeOrder::bf16
                                                          : CodeOrder::f32;
  auto* const to = reinterpret_cast<unsigned char*>(weight.panel(panel));
  std::memset(to, 0, static_cast<std::size_t>(run.panel_bytes));  // columns that are padding
  const std::int64_t elements = kGroup * format.groups;
  NativeBlock block;
  for (std::int64_t first = 0, count = 0; first < weight.k(); first += count) {
    count = rows.take(first, weight.k() - first);
    for (int c = 0; c < 2 * lanes; ++c) {
      if (rows.is_padding(c)) continue;
      if (!rows.has_blocks(c, format)) {
        float numbers[kGroup];
        for (std::int64_t i = 0; i < count; i += kGroup) {
          rows.numbers(c, i, numbers);
          round_block(format, numbers, block);
          write_block(format, block, lanes, order, c, (first + i) / kGroup, to);
        }
        continue;
      }
      const auto* from = reinterpret_cast<const std::uint8_t*>(rows.blocks(c));
      for (std::int64_t i = 0; i < count / elements; ++i, from += info(format.dtype).block_bytes) {
        read_block(format, from, block);
        write_block(format, block, lanes, order, c, first / elements + i, to);
      }
    }
  }
}

void pack_panel(std::span<const HostTensor> parts, PackedWeight& weight, std::int64_t panel,
                std::span<std::byte> staging) {
  Rows rows(parts, weight, panel, staging);
  if (weight.layout().run_of(panel).format == nullptr)
    pack_dense(rows, weight, panel);
  else
    pack_native(rows, weight, panel);
}

}  // namespace

std::unique_ptr<Weight> pack_weight(ThreadPool& pool, std::span<const HostTensor> parts, const WeightForm& form,
                                    Isa isa, DType dtype, const PanelForms& forms) {
  const std::int64_t n = checked_pack_rows(parts, form);
  auto weight = std::make_unique<PackedWeight>(n, parts[0].cols(), form, isa, dtype, parts, forms);
  std::exception_ptr failure;
  std::atomic<bool> failed{false};
  const std::size_t staged = is_in_file(parts) ? std::min(kStaged, panel_bytes(parts, weight->k())) : 0;  // each thread
  std::vector<std::byte> staging(staged * static_cast<std::size_t>(pool.threads()));
  pool.for_each(weight->layout().panels, [&](std::int64_t panel, int thread) {
    try {
      const auto memory = std::span(staging).subspan(staged * static_cast<std::size_t>(thread), staged);
      if (!failed.load(std::memory_order_relaxed)) pack_panel(parts, *weight, panel, memory);
    } catch (...) {
      if (!failed.exchange(true)) failure = std::current_exception();
    }
  });
  if (failure != nullptr) std::rethrow_exception(failure);
  return weight;
}

PackedSize packed_weight_size(std::span<const HostTensor> parts, const WeightForm& form, Isa isa, DType dtype,
                              const PanelForms& forms) {
  std::int64_t rows = 0;
  for (const HostTensor& part : parts) rows += part.rows();
  const std::int64_t n = form.kind == PackKind::gated ? rows / 2 : rows;
  return PackedLayout(n, parts[0].cols(), form, kernel_of(isa, dtype), dtype, parts, forms).size();
}

std::size_t packed_weight_bytes(std::int64_t n, std::int64_t k, const WeightForm& form, Isa isa, DType dtype) {
  return PackedLayout(n, k, form, kernel_of(isa, dtype), dtype).size().bytes;
}

namespace {

/// Numbers [at, at + count) along k of a column, from a dense panel.
void read_column(const std::byte* panel, DType dtype, std::int64_t columns, std::int64_t column, std::int64_t at,
                 std::int64_t count, float* out) {
  for (std::int64_t i = 0; i < count; ++i, ++at)
    out[i] = dtype == DType::f32
                 ? reinterpret_cast<const float*>(panel)[at * columns + column]
                 : from_bf16(reinterpret_cast<const std::uint16_t*>(panel)[(at / 2 * columns + column) * 2 + at % 2]);
}

/// All numbers of a column of a panel for integer products: those of the file, in f32.
void read_codes(const PackedWeight& weight, const NativeFormat& format, const std::byte* panel, std::int64_t column,
                float* out) {
  const IntegerProduct& product = product_of(*weight.integer(), format);
  const int lanes = weight.kernel().lanes;
  alignas(64) unsigned char group[kMaxColumns * (kGroup + 4 * sizeof(float))];
  const auto number = [&](int field) {
    float value;
    std::memcpy(&value, group + (kGroup + 4 * field) * 2 * lanes + 4 * column, sizeof value);
    return value;
  };
  for (std::int64_t k = 0; k < weight.k(); ++k) {
    const auto at = static_cast<int>(k % kGroup);
    if (at == 0) product.expand(reinterpret_cast<const unsigned char*>(panel), k / kGroup, 1, group);
    const unsigned char code = group[(at / 4 * 2 * lanes + column) * 4 + at % 4];
    const int value = (product.is_signed ? static_cast<signed char>(code) : code) - product.zero;
    const int half = product.halves == 2 ? at / 16 : 0;
    out[k] = static_cast<float>(value) * number(half);
    if (product.minimum) out[k] += number(product.halves + half);
  }
}

}  // namespace

void unpack_row(const Weight& weight, std::int64_t row, float* out) {
  const auto& packed = static_cast<const PackedWeight&>(weight);
  if (packed.kind() != PackKind::stacked) throw InvalidArgument("unpack_row: rows of a gated pair cannot be read back");
  if (row < 0 || row >= packed.n())
    throw InvalidArgument(str("unpack_row: row ", row, " of a weight with ", packed.n(), " rows"));
  const std::int64_t columns = 2 * packed.kernel().lanes, column = row % columns;
  const std::byte* panel = packed.panel(row / columns);
  const PanelRun& run = packed.layout().run_of(row / columns);
  if (run.integer) return read_codes(packed, *run.format, panel, column, out);
  if (const NativeFormat* format = run.format; format != nullptr) {
    // A group at a time, of all columns: what the kernels see.
    alignas(64) std::byte group[kGroup * kMaxColumns * sizeof(float)];
    const WidenFunction widen = widen_of(*format, packed.isa(), packed.dtype());
    for (std::int64_t k = 0; k < packed.k(); k += kGroup) {
      widen(reinterpret_cast<const unsigned char*>(panel), k / kGroup, 1, group);
      read_column(group, packed.dtype(), columns, column, 0, kGroup, out + k);
    }
    return;
  }
  MatmulLeaf before;
  for (const MatmulLeaf& leaf : packed.layout().leaves) {
    read_column(panel, packed.dtype(), columns, column, before.padded_end, leaf.k_end - before.k_end,
                out + before.k_end);
    before = leaf;
  }
}

}  // namespace pagedcore::cpu
