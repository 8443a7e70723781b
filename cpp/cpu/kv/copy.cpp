// Copy-on-write on the CPU: the filled tokens of a block, every layer.
#include <cstring>

#include "base/text.hpp"
#include "cpu/kv/kv.hpp"
#include "cpu/kv/storage.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore::cpu {

void copy_blocks(ThreadPool& pool, KvStorage& storage, std::span<const BlockCopy> copies) {
  const auto& kv = static_cast<const PagedStorage&>(storage);
  const TileLayout& layout = kv.layout();
  for (const BlockCopy& copy : copies) {
    if (raw(copy.src) >= kv.num_blocks() || raw(copy.dst) >= kv.num_blocks())
      throw InvalidArgument(str("copy of block ", raw(copy.src), " to block ", raw(copy.dst), ": the KV storage has ",
                                kv.num_blocks(), " blocks"));
    if (copy.num_tokens > static_cast<std::uint32_t>(layout.block_size))
      throw InvalidArgument(
          str("copy of ", copy.num_tokens, " tokens of block ", raw(copy.src), ": a block holds ", layout.block_size));
  }
  const std::int64_t layers = kv.shape().num_layers;
  // Whole tiles: picking single lanes out of one would read and write the same cache lines.
  const auto copy_layer = [&](std::int64_t i, int) {
    const BlockCopy& copy = copies[static_cast<std::size_t>(i / layers)];
    const std::size_t tokens = copy.num_tokens, tiles = (tokens + kTileTokens - 1) / kTileTokens;
    const std::size_t row = static_cast<std::size_t>(layout.head_dim) * layout.element;
    const std::size_t k_bytes = layout.tiled ? tiles * layout.k_tile : tokens * row;
    const std::size_t v_bytes = layout.tiled ? tiles * layout.v_tile : tokens * row;
    for (std::int32_t head = 0; head < kv.shape().num_kv_heads; ++head) {
      const char* src = kv.part(raw(copy.src), static_cast<std::int32_t>(i % layers), head);
      char* dst = kv.part(raw(copy.dst), static_cast<std::int32_t>(i % layers), head);
      std::memcpy(dst, src, k_bytes);
      std::memcpy(dst + layout.v_offset, src + layout.v_offset, v_bytes);
    }
  };
  pool.for_each(static_cast<std::int64_t>(copies.size()) * layers, copy_layer);
}

}  // namespace pagedcore::cpu
