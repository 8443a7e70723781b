#include "backend/checks.hpp"

#include <algorithm>
#include <cstring>
#include <limits>

#include "backend/sum_tree.hpp"
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

void check_type(const char* what, const Tensor& t, DType narrow) {
  if (t.dtype != DType::f32 && t.dtype != narrow)
    throw InvalidArgument(str(what, " is ", shape_text(t), "; expected f32 or ", info(narrow).name));
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

std::size_t checked_row_bytes(const char* what, const Tensor& t, std::size_t bytes) {
  check_shape(what, t, t.rows, t.cols);
  const std::size_t row = bytes_of(t.dtype, t.cols);
  if (bytes != row * static_cast<std::size_t>(t.rows))
    throw InvalidArgument(str(what, " is ", shape_text(t), ", which is ", row * static_cast<std::size_t>(t.rows),
                              " bytes; the host memory has ", bytes));
  return row;
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
  if (e.activation == Activation::clamped_swiglu && e.kind == Epilogue::Kind::activated)
    throw InvalidArgument("matmul: clamped_swiglu takes a gate, which only the gated epilogue has");
  const std::int64_t biases = gated ? 2 * weight.n() : weight.n();
  if (e.bias != nullptr && (e.bias->dtype != DType::f32 || e.bias->rows != 1 || e.bias->cols != biases))
    throw InvalidArgument(str("matmul: the bias is ", shape_of(*e.bias), "; it must be f32 [1, ", biases, "]"));
  if (e.row_scale == nullptr) return;
  if (!gated) throw InvalidArgument("matmul: only what the gated epilogue stores is scaled by row");
  check_f32("matmul: the scale of rows", *e.row_scale, in.rows, 1);
}

namespace {

void check_routing(const char* what, const Routing& routing, std::int64_t rows, std::int64_t experts) {
  check_shape(what, routing.experts, rows, routing.experts.cols);
  if (routing.experts.dtype != DType::i32)
    throw InvalidArgument(str(what, ": the experts are ", shape_of(routing.experts), "; expected i32"));
  if (routing.experts.cols < 1 || routing.experts.cols > experts)
    throw InvalidArgument(str(what, ": ", routing.experts.cols, " experts a row of ", experts, "; at least 1"));
  check_f32(what, routing.shares, rows, routing.shares.cols);
}

}  // namespace

void check_route(const Routing& out, const Tensor& logits, const RouterParams& p) {
  const std::int64_t gate = p.gate ? 1 : 0;
  check_f32("route: the logits", logits, out.experts.rows, logits.cols);
  check_routing("route", out, logits.rows, logits.cols - gate);
  check_shape("route: the shares", out.shares, logits.rows, out.experts.cols + gate);
}

void check_mixture(const Tensor& out, const Tensor& in, const Routing& routing, const Mixture& experts, DType compute) {
  if (experts.up.empty() || experts.up.size() != experts.down.size())
    throw InvalidArgument(str("mixture: ", experts.up.size(), " gated pairs and ", experts.down.size(),
                              " matrices after them; as many of each, at least 1"));
  const std::int64_t k = experts.up[0]->k(), inner = experts.up[0]->n(), n = experts.down[0]->n();
  for (std::size_t i = 0; i < experts.up.size(); ++i)
    if (experts.up[i]->k() != k || experts.up[i]->n() != inner || experts.down[i]->k() != inner ||
        experts.down[i]->n() != n)
      throw InvalidArgument(str("mixture: expert ", i, " takes ", experts.up[i]->k(), " columns to ",
                                experts.up[i]->n(), " and ", experts.down[i]->k(), " to ", experts.down[i]->n(),
                                "; the first one ", k, " to ", inner, " to ", n));
  check_routing("mixture", routing, in.rows, static_cast<std::int64_t>(experts.up.size()));
  if (routing.shares.cols < routing.experts.cols)
    throw InvalidArgument(
        str("mixture: the shares are ", shape_of(routing.shares), " for ", routing.experts.cols, " experts a row"));
  const std::int64_t slots = in.rows * routing.experts.cols;
  check_f32("mixture: the output", out, in.rows, n);
  check_shape("mixture: the input", in, in.rows, k);
  check_shape("mixture: the gathered rows", experts.gathered, slots, k);
  check_shape("mixture: the inner rows", experts.inner, slots, inner);
  const auto count = static_cast<std::int64_t>(experts.up.size());
  if (experts.up_bias != nullptr) check_f32("mixture: biases of gate and up", *experts.up_bias, count, 2 * inner);
  if (experts.down_bias != nullptr) check_f32("mixture: biases of down", *experts.down_bias, count, n);
  for (const Tensor* t : {&in, &experts.gathered, &experts.inner})
    if (t->dtype != compute)
      throw InvalidArgument(str("mixture: a matrix is ", shape_of(*t), "; expected ", info(compute).name));
}

void check_embed(const Tensor& out, const Weight& table, std::span<const TokenId> tokens) {
  check_f32("embed: the output", out, static_cast<std::int64_t>(tokens.size()), table.k());
  for (std::size_t row = 0; row < tokens.size(); ++row)
    if (tokens[row] < 0 || tokens[row] >= table.n())
      throw InvalidArgument(
          str("embed: token ", tokens[row], " of row ", row, " is outside the vocabulary [0, ", table.n(), ")"));
}

void check_embed_some(const Tensor& out, const Weight& table, std::size_t num_tokens) {
  check_f32("embed_some: the output", out, static_cast<std::int64_t>(num_tokens), table.k());
}

void check_embed_positions(const Tensor& out, const Weight& table, std::span<const std::int32_t> positions,
                           std::int32_t offset) {
  check_f32("embed_positions: the output", out, static_cast<std::int64_t>(positions.size()), table.k());
  if (offset < 0) throw InvalidArgument(str("embed_positions: an offset of ", offset, "; it is at least 0"));
  for (std::size_t row = 0; row < positions.size(); ++row)
    if (std::int64_t{positions[row]} + offset >= table.n())
      throw InvalidArgument(str("embed_positions: position ", positions[row], " of row ", row,
                                " is beyond the table's last, ", table.n() - 1 - offset));
}

void check_add(const Tensor& x, const Tensor& y) {
  check_f32("add: the sum", x, x.rows, x.cols);
  check_f32("add: what is added", y, x.rows, x.cols);
}

void check_convert(const Tensor& out, const Tensor& in, DType narrow) {
  check_f32("convert: the input", in, in.rows, in.cols);
  check_shape("convert: the output", out, in.rows, in.cols);
  check_type("convert: the output", out, narrow);
}

void check_gather_rows(const Tensor& out, const Tensor& in, std::span<const std::int32_t> indices) {
  check_shape("gather_rows: the output", out, static_cast<std::int64_t>(indices.size()), in.cols);
  check_shape("gather_rows: the input", in, in.rows, in.cols);
  if (out.dtype != in.dtype)
    throw InvalidArgument(
        str("gather_rows: the output is ", info(out.dtype).name, " and the input ", info(in.dtype).name));
  for (const std::int32_t index : indices)
    if (index < 0 || index >= in.rows)
      throw InvalidArgument(str("gather_rows: row ", index, " of an input of ", in.rows, " rows"));
}

void check_norm(const Tensor& out, const Tensor& in, const Tensor& weight, const Tensor* bias, DType narrow) {
  check_f32("norm: the input", in, in.rows, in.cols);
  check_shape("norm: the output", out, in.rows, in.cols);
  check_f32("norm: the weight", weight, 1, in.cols);
  if (bias != nullptr) check_f32("norm: the bias", *bias, 1, in.cols);
  check_type("norm: the output", out, narrow);
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

BatchFacts checked_batch(const BatchView& view, std::int32_t block_size) {
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
  return {next_row, block_size, view.num_layer_groups, largest};
}

void check_copies(std::span<const BlockCopy> copies, std::uint32_t num_blocks, std::int32_t block_size) {
  for (const BlockCopy& copy : copies) {
    if (raw(copy.src) >= num_blocks || raw(copy.dst) >= num_blocks)
      throw InvalidArgument(str("copy of block ", raw(copy.src), " to block ", raw(copy.dst), ": the KV storage has ",
                                num_blocks, " blocks"));
    if (copy.num_tokens > static_cast<std::uint32_t>(block_size))
      throw InvalidArgument(
          str("copy of ", copy.num_tokens, " tokens of block ", raw(copy.src), ": a block holds ", block_size));
  }
}

void check_swap(std::span<const BlockId> blocks, std::size_t places, std::uint32_t num_blocks) {
  if (blocks.size() != places)
    throw InvalidArgument(str("a swap of ", blocks.size(), " blocks has ", places, " places in host memory"));
  for (const BlockId block : blocks) {
    if (raw(block) >= num_blocks)
      throw InvalidArgument(str("swap of block ", raw(block), ": the KV storage has ", num_blocks, " blocks"));
  }
}

void check_layer_call(const KvStorage& kv, const BatchFacts& batch, std::int32_t layer, const AttentionShape& shape) {
  const KvShape& s = kv.shape();
  if (layer < 0 || layer >= s.num_layers)
    throw InvalidArgument(str("layer ", layer, " of a KV storage that has ", s.num_layers, " layers"));
  if (shape.num_kv_heads != s.num_kv_heads || shape.head_dim != s.head_dim)
    throw InvalidArgument(str("attention over ", shape.num_kv_heads, " KV heads of size ", shape.head_dim,
                              ", but the KV storage was made for ", s.num_kv_heads, " of size ", s.head_dim));
  if (shape.num_heads < 1 || (shape.heads_per_kv_head == 0 && shape.num_heads % shape.num_kv_heads != 0))
    throw InvalidArgument(
        str(shape.num_heads, " attention heads are not a multiple of ", shape.num_kv_heads, " KV heads"));
  const std::int64_t group = shape.group(), before = shape.first_in_group;
  if (before < 0 || before >= group || (before + shape.num_heads + group - 1) / group != shape.num_kv_heads)
    throw InvalidArgument(str(shape.num_heads, " attention heads from place ", before,
                              " of a KV head on do not end in ", "the last of ", shape.num_kv_heads,
                              " KV heads, which have ", group, " each"));
  if (batch.block_size != s.block_size)
    throw InvalidArgument(str("the batch was prepared for blocks of ", batch.block_size,
                              " tokens, the KV storage has blocks of ", s.block_size));
  if (shape.layer_group < 0 || shape.layer_group >= batch.num_layer_groups)
    throw InvalidArgument(
        str("layer group ", shape.layer_group, ", but the batch has tables of ", batch.num_layer_groups));
  if (batch.largest_block >= kv.num_blocks())
    throw InvalidArgument(str("a block table names block ", batch.largest_block, " of a KV storage that has ",
                              kv.num_blocks(), " blocks"));
}

std::vector<TreeAddition> checked_additions(const Tensor& out, const PartialSums& sums, const Epilogue& e) {
  check_f32("combine: the output", out, out.rows, out.cols);
  if (sums.nodes.size() != sums.values.size())
    throw InvalidArgument(str("combine: ", sums.nodes.size(), " nodes with the values of ", sums.values.size()));
  for (const Tensor& value : sums.values) check_f32("combine: the values of a node", value, out.rows, out.cols);
  if (e.kind != Epilogue::Kind::store && e.kind != Epilogue::Kind::accumulate)
    throw InvalidArgument("combine: sums are stored or accumulated, nothing else");
  if (e.bias != nullptr) check_f32("combine: the bias", *e.bias, 1, out.cols);
  return additions_of(sums.nodes, sums.num_leaves);
}

void check_rope_and_cache(const Tensor& q, const Tensor& qkv, std::int64_t rows, const AttentionShape& shape,
                          const RopeParams& rope, DType narrow) {
  const std::int64_t q_cols = std::int64_t{shape.num_heads} * shape.head_dim;
  check_shape("rope_and_cache: q", q, rows, q_cols);
  check_type("rope_and_cache: q", q, narrow);
  check_f32("rope_and_cache: qkv", qkv, rows, q_cols + 2 * std::int64_t{shape.num_kv_heads} * shape.head_dim);
  if (rope.inv_freq == nullptr) return;
  check_f32("rope_and_cache: inv_freq", *rope.inv_freq, 1, rope.inv_freq->cols);
  if (2 * rope.inv_freq->cols > shape.head_dim)
    throw InvalidArgument(str("rope_and_cache: ", rope.inv_freq->cols, " frequencies rotate ", 2 * rope.inv_freq->cols,
                              " dimensions of a head of ", shape.head_dim));
}

void check_attention(const Tensor& out, const Tensor& q, std::int64_t rows, const AttentionParams& p, DType narrow) {
  const std::int64_t cols = std::int64_t{p.shape.num_heads} * p.shape.head_dim;
  check_shape("attention: the output", out, rows, cols);
  check_type("attention: the output", out, narrow);
  check_shape("attention: q", q, rows, cols);
  check_type("attention: q", q, narrow);
  if (p.alibi != nullptr) check_f32("attention: alibi", *p.alibi, 1, p.shape.num_heads);
  if (p.sinks != nullptr) check_f32("attention: sinks", *p.sinks, 1, p.shape.num_heads);
  if (p.window < 0) throw InvalidArgument(str("attention: a window of ", p.window, " tokens; 0 means none"));
}

}  // namespace pagedcore
