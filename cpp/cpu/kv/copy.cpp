// Copy-on-write on the CPU: the filled tokens of a block, every layer.
#include <cstring>

#include "backend/checks.hpp"
#include "cpu/kv/kv.hpp"
#include "cpu/kv/storage.hpp"

namespace pagedcore::cpu {

void copy_blocks(ThreadPool& pool, KvStorage& storage, std::span<const BlockCopy> copies) {
  const auto& kv = static_cast<const PagedStorage&>(storage);
  const TileLayout& layout = kv.layout();
  check_copies(copies, kv.num_blocks(), layout.block_size);
  const std::int64_t layers = kv.shape().num_layers;
  // Whole tiles: picking single lanes out of one would read and write the same cache lines.
  const auto copy_layer = [&](std::int64_t i, int) {
    const BlockCopy& copy = copies[static_cast<std::size_t>(i / layers)];
    const std::size_t tokens = copy.num_tokens, tiles = (tokens + kTileTokens - 1) / kTileTokens;
    const std::size_t row = static_cast<std::size_t>(layout.head_dim) * layout.element;
    const std::size_t k_bytes = layout.tiled ? tiles * layout.k_stored : tokens * row;
    const std::size_t v_bytes = layout.tiled ? tiles * layout.v_stored : tokens * row;
    for (std::int32_t head = 0; head < kv.shape().num_kv_heads; ++head) {
      const char* src = kv.part(raw(copy.src), static_cast<std::int32_t>(i % layers), head);
      char* dst = kv.part(raw(copy.dst), static_cast<std::int32_t>(i % layers), head);
      std::memcpy(dst, src, k_bytes);
      std::memcpy(dst + layout.v_offset, src + layout.v_offset, v_bytes);
      if (layout.scales == 0) continue;
      const std::size_t scales = tokens * sizeof(float),
                        all = layout.scales + static_cast<std::size_t>(layout.block_size) * sizeof(float);
      std::memcpy(dst + layout.scales, src + layout.scales, scales);
      std::memcpy(dst + all, src + all, scales);
    }
  };
  pool.for_each(static_cast<std::int64_t>(copies.size()) * layers, copy_layer);
}

}  // namespace pagedcore::cpu
