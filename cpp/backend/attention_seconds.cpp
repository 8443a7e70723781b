// A micro-benchmark of attention, for comparing layouts of the KV storage (PagedAttention, section 7.1).
#include <algorithm>
#include <chrono>
#include <limits>
#include <random>
#include <vector>

#include "backend/checks.hpp"
#include "base/text.hpp"
#include "pagedcore/backend.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore {
namespace {

/// Small numbers in every slot of every block, whatever a tile looks like inside. Untouched storage may be one page.
void fill(Backend& backend, KvStorage& kv) {
  const std::vector<std::byte> block = some_numbers(kv.block_bytes());
  for (std::uint32_t b = 0; b < kv.num_blocks(); ++b) {
    const BlockId id{b};
    const std::byte* source = block.data();
    backend.swap_in(kv, {&id, 1}, {&source, 1});
  }
  backend.synchronize();
}

/// Blocks of a sequence, where those of all of them, and their memory, stay within what there is.
std::uint32_t checked_blocks(const Backend& backend, const AttentionProbe& probe) {
  for (const std::int32_t count : {probe.batch, probe.context, probe.repeats, probe.num_heads, probe.kv.block_size}) {
    if (count < 1) throw InvalidArgument(str("a count of ", count, " in an attention probe; all are at least 1"));
  }
  const std::int64_t blocks = (std::int64_t{probe.context} + probe.kv.block_size - 1) / probe.kv.block_size;
  constexpr std::int64_t most = std::numeric_limits<std::int32_t>::max();
  const std::string what = str("an attention probe of ", probe.batch, " sequences of ", probe.context, " tokens in ",
                               blocks, " blocks each");
  if (blocks * probe.batch > most) throw InvalidArgument(str(what, ": there can be ", most, " blocks"));
  const double kv = static_cast<double>(blocks * probe.batch) * static_cast<double>(backend.kv_block_bytes(probe.kv));
  check_room(backend, what, kv + 8.0 * probe.batch * probe.num_heads * probe.kv.head_dim);
  return static_cast<std::uint32_t>(blocks);
}

Tensor matrix(Buffer& buffer, DType dtype, std::int64_t rows, std::int64_t cols) {
  return {buffer.data(), dtype, rows, cols, cols};
}

}  // namespace

double attention_seconds(Backend& backend, const AttentionProbe& probe) {
  const std::uint32_t blocks = checked_blocks(backend, probe);
  const auto batch = static_cast<std::uint32_t>(probe.batch);
  const auto kv = backend.allocate_kv(probe.kv, batch * blocks);
  fill(backend, *kv);

  std::vector<BlockId> tables = first_blocks(batch * blocks);
  std::shuffle(tables.begin(), tables.end(), std::mt19937(1));
  std::vector<TokenRange> ranges;
  for (std::int32_t i = 0; i < probe.batch; ++i) {
    ranges.push_back({i, 1, probe.context - 1, i * static_cast<std::int32_t>(blocks)});
  }
  const std::vector<TokenId> tokens(batch);
  const auto prepared = backend.prepare({tokens, ranges, tables}, probe.kv.block_size);

  const std::int64_t cols = std::int64_t{probe.num_heads} * probe.kv.head_dim;
  const DType dtype = backend.compute_dtype();
  const std::size_t bytes = bytes_of(dtype, probe.batch * cols);
  const auto queries = backend.allocate(bytes), outputs = backend.allocate(bytes);
  const Tensor q = matrix(*queries, dtype, probe.batch, cols), out = matrix(*outputs, dtype, probe.batch, cols);
  backend.upload(q, some_numbers(bytes));
  AttentionParams params;
  params.shape = {probe.num_heads, probe.kv.num_kv_heads, probe.kv.head_dim, 0};

  double least = std::numeric_limits<double>::infinity();
  for (std::int32_t repeat = 0; repeat <= probe.repeats; ++repeat) {  // the first one warms up
    const auto start = std::chrono::steady_clock::now();
    for (std::int32_t layer = 0; layer < probe.kv.num_layers; ++layer) {
      backend.attention(out, q, *kv, layer, *prepared, params);
    }
    backend.synchronize();
    const std::chrono::duration<double> passed = std::chrono::steady_clock::now() - start;
    if (repeat > 0) least = std::min(least, passed.count() / probe.kv.num_layers);
  }
  return least;
}

}  // namespace pagedcore
