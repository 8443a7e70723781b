#include "backend/checks.hpp"

#include <algorithm>
#include <cstring>
#include <limits>

#include "base/host_memory.hpp"
#include "base/text.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore {
namespace {

std::string shape_of(const Tensor& t) { return str(info(t.dtype).name, " [", t.rows, ", ", t.cols, "]"); }

// Returns the number of table entries that the range needs.
std::size_t check_range(const BatchView& view, std::size_t i, std::int64_t next_row, std::int32_t block_size,
                        std::size_t entries) {
  const TokenRange& range = view.ranges[i];
  if (range.num_rows < 1)
    throw InvalidArgument(str("token range ", i, " has ", range.num_rows, " rows; a range has at least 1"));
  if (range.first_row != next_row)
    throw InvalidArgument(str("token range ", i, " starts at row ", range.first_row, ", expected row ", next_row,
                              ": ranges cover the rows in order, each once"));
  if (next_row + range.num_rows > static_cast<std::int64_t>(view.tokens.size()))
    throw InvalidArgument(str("token range ", i, " ends at row ", next_row + range.num_rows, " of a batch of ",
                              view.tokens.size(), " rows"));
  if (range.first_position < 0)
    throw InvalidArgument(
        str("token range ", i, " starts at position ", range.first_position, "; positions start at 0"));
  const std::int64_t end = std::int64_t{range.first_position} + range.num_rows;
  if (end > std::numeric_limits<std::int32_t>::max() / 2)
    throw InvalidArgument(str("token range ", i, " ends at position ", end, ", more than ",
                              std::numeric_limits<std::int32_t>::max() / 2));
  const std::int64_t blocks = (end + block_size - 1) / block_size;
  if (range.table_offset < 0 || range.table_offset + blocks > static_cast<std::int64_t>(entries))
    throw InvalidArgument(str("token range ", i, " needs ", blocks, " blocks for ", end, " positions of ", block_size,
                              " tokens a block, at offset ", range.table_offset, " of ", entries,
                              " block table entries"));
  return static_cast<std::size_t>(blocks);
}

}  // namespace

std::string shape_text(const Tensor& t) {
  return str(info(t.dtype).name, " [", t.rows, ", ", t.cols, "] (stride ", t.stride, ")");
}

void check_shape(const char* what, const Tensor& t, std::int64_t rows, std::int64_t cols) {
  if (t.rows != rows || t.cols != cols || t.stride < t.cols || rows < 0 || cols < 0 ||
      (t.data == nullptr && rows > 0 && cols > 0))
    throw InvalidArgument(str(what, " is ", shape_text(t), "; expected [", rows, ", ", cols, "]"));
}

void check_f32(const char* what, const Tensor& t, std::int64_t rows, std::int64_t cols) {
  check_shape(what, t, rows, cols);
  if (t.dtype != DType::f32) throw InvalidArgument(str(what, " is ", shape_text(t), "; expected f32"));
}

std::int64_t checked_pack_rows(std::span<const HostTensor> parts, const WeightForm& form) {
  if (parts.empty()) throw InvalidArgument("pack: no matrices given; pass at least one");
  if (form.kind == PackKind::gated &&
      (parts.size() != 2 || parts[0].rows() != parts[1].rows() || parts[0].cols() != parts[1].cols()))
    throw InvalidArgument("pack: a gated weight takes exactly two matrices (gate, up) of equal shape");
  std::int64_t rows = 0;
  for (const HostTensor& part : parts) {
    const std::int64_t k = part.cols(), block = info(part.dtype).block_elements;
    if (k != parts[0].cols())
      throw InvalidArgument(str("pack: matrices of ", parts[0].cols(), " and ", k, " columns cannot be stacked"));
    if (k < 1 || part.rows() < 1) throw InvalidArgument(str("pack: a matrix of [", part.rows(), ", ", k, "] is empty"));
    if (k % block != 0)
      throw InvalidArgument(str("pack: rows of ", k, " columns are not a whole number of ", info(part.dtype).name,
                                " blocks of ", block, "; convert the tensor to another type"));
    if (part.size_bytes() != bytes_of(part.dtype, part.count()))
      throw InvalidArgument(str("pack: a ", info(part.dtype).name, " matrix of [", part.rows(), ", ", k, "] takes ",
                                bytes_of(part.dtype, part.count()), " bytes, but ", part.size_bytes(), " were given"));
    rows += part.rows();
  }
  check_leaves(form.leaf_ends, parts[0].cols());
  return form.kind == PackKind::gated ? rows / 2 : rows;
}

void check_leaves(std::span<const std::int64_t> leaf_ends, std::int64_t k) {
  if (leaf_ends.empty()) return;
  if (leaf_ends.size() > kMostLeaves)
    throw InvalidArgument(str("pack: ", leaf_ends.size(), " leaves; a weight has at most ", kMostLeaves));
  std::int64_t last = 0;
  for (const std::int64_t end : leaf_ends) {
    if (end <= last)
      throw InvalidArgument(
          str("pack: a leaf ends at ", end, ", the one before at ", last, "; ends of leaves ascend, from 1 or more"));
    last = end;
  }
  if (last != k) throw InvalidArgument(str("pack: the last leaf ends at ", last, "; it must end at k, which is ", k));
}

void check_matmul(const Tensor& out, const Tensor& in, const Weight& weight, PackKind kind, DType compute, DType narrow,
                  const Epilogue& e) {
  const bool gated = e.kind == Epilogue::Kind::gated;
  if (in.dtype != compute || in.cols != weight.k() || in.rows < 0 || in.stride < in.cols)
    throw InvalidArgument(str("matmul: the input is ", shape_of(in), " with stride ", in.stride,
                              ", but the weight takes ", info(compute).name, " rows of ", weight.k()));
  if (out.rows != in.rows || out.cols != weight.n() || out.stride < out.cols)
    throw InvalidArgument(str("matmul: the output is ", shape_of(out), " with stride ", out.stride, "; it must be [",
                              in.rows, ", ", weight.n(), "]"));
  if (out.dtype != DType::f32 && (out.dtype != narrow || e.kind == Epilogue::Kind::accumulate))
    throw InvalidArgument(str("matmul: the output cannot be ", info(out.dtype).name, "; it is f32, or ",
                              info(narrow).name, " where nothing is accumulated"));
  if (gated != (kind == PackKind::gated))
    throw InvalidArgument("matmul: the gated epilogue goes with a gated weight, and the others with a stacked one");
  const std::int64_t biases = gated ? 2 * weight.n() : weight.n();
  if (e.bias != nullptr && (e.bias->dtype != DType::f32 || e.bias->rows != 1 || e.bias->cols != biases))
    throw InvalidArgument(str("matmul: the bias is ", shape_of(*e.bias), "; it must be f32 [1, ", biases, "]"));
}

void check_positions(std::span<const std::int32_t> positions, std::int64_t table_rows, std::int32_t offset) {
  if (offset < 0) throw InvalidArgument(str("embed_positions: an offset of ", offset, "; it is at least 0"));
  for (std::size_t row = 0; row < positions.size(); ++row)
    if (std::int64_t{positions[row]} + offset >= table_rows)
      throw InvalidArgument(str("embed_positions: position ", positions[row], " of row ", row,
                                " is beyond the table's last, ", table_rows - 1 - offset));
}

void check_norm(const Tensor& out, const Tensor& in, const Tensor& weight, const Tensor* bias, DType narrow) {
  check_f32("norm: the input", in, in.rows, in.cols);
  check_shape("norm: the output", out, in.rows, in.cols);
  check_f32("norm: the weight", weight, 1, in.cols);
  if (bias != nullptr) check_f32("norm: the bias", *bias, 1, in.cols);
  if (out.dtype != DType::f32 && out.dtype != narrow)
    throw InvalidArgument(str("norm: the output is ", shape_text(out), "; expected f32 or ", info(narrow).name));
  if (out.data == in.data && (out.dtype != in.dtype || out.stride != in.stride))
    throw InvalidArgument("norm: in place, the output must be f32 with the stride of the input");
}

bool check_head_norm(const Tensor& x, std::int32_t head_dim, const Tensor& weight, const Tensor* bias) {
  check_f32("head_norm: the input", x, x.rows, x.cols);
  if (head_dim < 1 || x.cols % head_dim != 0)
    throw InvalidArgument(str("head_norm: ", x.cols, " columns are not a multiple of the head size ", head_dim));
  const bool shared = weight.cols == head_dim;
  check_f32("head_norm: the weight", weight, 1, shared ? head_dim : x.cols);
  if (bias != nullptr) check_f32("head_norm: the bias", *bias, 1, weight.cols);
  return shared;
}

void check_kv_shape(const KvShape& shape) {
  if (shape.num_layers < 1 || shape.num_kv_heads < 1)
    throw InvalidArgument(str("KV storage of ", shape.num_layers, " layers x ", shape.num_kv_heads,
                              " KV heads: both must be at least 1"));
  if (shape.block_size < 1 || shape.block_size > kMostBlockSize)
    throw Unsupported(
        str("block size ", shape.block_size, " is outside 1 to ", kMostBlockSize, " tokens; 16 is the usual choice"));
}

std::vector<std::byte> some_numbers(std::size_t bytes) {
  // bf16 numbers, 1/64 to 1/32 large.
  std::vector<std::byte> numbers(bytes);
  std::uint32_t state = 1;
  for (std::size_t i = 0; i + 1 < bytes; i += 2) {
    state = state * 1664525u + 1013904223u;
    const auto bits = static_cast<std::uint16_t>(0x3c80u | (state >> 16 & 0x807fu));
    std::memcpy(&numbers[i], &bits, sizeof bits);
  }
  return numbers;
}

void check_room(const Backend& backend, const std::string& what, double bytes) {
  if (backend.available_memory()) return;
  const auto left = static_cast<double>(available_host_memory());
  if (!(bytes <= left))
    throw OutOfMemory(str(what, " takes ", bytes / (1 << 20), " MiB, but ", left / (1 << 20), " are available"));
}

std::vector<BlockId> first_blocks(std::uint32_t count) {
  std::vector<BlockId> blocks;
  blocks.reserve(count);
  for (std::uint32_t i = 0; i < count; ++i) blocks.push_back(BlockId{i});
  return blocks;
}

std::vector<std::uint32_t> raw_ids(std::span<const BlockId> blocks) {
  std::vector<std::uint32_t> ids;
  ids.reserve(blocks.size());
  for (const BlockId block : blocks) ids.push_back(raw(block));
  return ids;
}

std::uint32_t check_batch(const BatchView& view, std::int32_t block_size) {
  if (block_size < 1) throw InvalidArgument(str("block size ", block_size, ": a block holds at least 1 token"));
  const auto groups = static_cast<std::size_t>(std::max(1, view.num_layer_groups));
  const std::size_t entries = view.block_tables.size() / groups;
  if (view.num_layer_groups < 1 || entries * groups != view.block_tables.size())
    throw InvalidArgument(str(view.block_tables.size(), " block table entries for ", view.num_layer_groups,
                              " layer groups: as many for each, at least 1"));
  std::uint32_t largest = 0;
  std::int64_t next_row = 0;
  for (std::size_t i = 0; i < view.ranges.size(); ++i) {
    const TokenRange& range = view.ranges[i];
    const std::size_t blocks = check_range(view, i, next_row, block_size, entries);
    for (std::size_t layer_group = 0; layer_group < groups; ++layer_group) {
      const std::size_t first = layer_group * entries + static_cast<std::size_t>(range.table_offset);
      for (const BlockId block : view.block_tables.subspan(first, blocks)) {
        if (block != kNoBlock) largest = std::max(largest, raw(block));
      }
    }
    next_row += range.num_rows;
  }
  if (next_row != static_cast<std::int64_t>(view.tokens.size()))
    throw InvalidArgument(str("token ranges cover ", next_row, " of ", view.tokens.size(), " rows"));
  return largest;
}

void check_attention(const KvShape& s, std::int32_t block_size, std::int32_t num_layer_groups, std::int32_t layer,
                     const AttentionShape& shape) {
  if (layer < 0 || layer >= s.num_layers)
    throw InvalidArgument(str("layer ", layer, " of a KV storage that has ", s.num_layers, " layers"));
  if (shape.num_kv_heads != s.num_kv_heads || shape.head_dim != s.head_dim)
    throw InvalidArgument(str("attention over ", shape.num_kv_heads, " KV heads of size ", shape.head_dim,
                              ", but the KV storage was made for ", s.num_kv_heads, " of size ", s.head_dim));
  if (shape.num_heads < 1 || shape.num_heads % shape.num_kv_heads != 0)
    throw InvalidArgument(
        str(shape.num_heads, " attention heads are not a multiple of ", shape.num_kv_heads, " KV heads"));
  if (block_size != s.block_size)
    throw InvalidArgument(str("the batch was prepared for blocks of ", block_size,
                              " tokens, the KV storage has blocks of ", s.block_size));
  if (shape.layer_group < 0 || shape.layer_group >= num_layer_groups)
    throw InvalidArgument(str("layer group ", shape.layer_group, ", but the batch has tables of ", num_layer_groups));
}

}  // namespace pagedcore
