// PagedStorage: the KV storage of the CPU, [block][layer][kv head][K tile | V tile] in one lazily zeroed mapping.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cpu/isa.hpp"
#include "cpu/kv/layout.hpp"
#include "cpu/workspace.hpp"
#include "pagedcore/backend.hpp"

namespace pagedcore::cpu {

class PagedStorage final : public KvStorage {
 public:
  PagedStorage(const KvShape& shape, std::uint32_t num_blocks, Isa isa, DType compute);
  ~PagedStorage() override;
  PagedStorage(const PagedStorage&) = delete;
  PagedStorage& operator=(const PagedStorage&) = delete;

  const KvShape& shape() const noexcept override { return shape_; }
  std::uint32_t num_blocks() const noexcept override { return num_blocks_; }
  std::size_t block_bytes() const noexcept override { return layout_.block_bytes; }

  const std::byte* host_view(BlockId block) const noexcept override {
    return reinterpret_cast<const std::byte*>(part(raw(block), 0, 0));
  }

  const TileLayout& layout() const noexcept { return layout_; }
  Isa isa() const noexcept { return isa_; }
  Workspace& workspace() const noexcept { return workspace_; }
  /// The part of `layer` and `kv_head` in `block`.
  char* part(std::uint32_t block, std::int32_t layer, std::int32_t kv_head) const noexcept {
    return memory_ + block * layout_.block_bytes + static_cast<std::size_t>(layer) * layout_.layer_bytes +
           static_cast<std::size_t>(kv_head) * layout_.head_bytes;
  }

 private:
  KvShape shape_;
  TileLayout layout_;
  std::uint32_t num_blocks_;
  Isa isa_;
  char* memory_ = nullptr;
  std::size_t bytes_ = 0;
  mutable Workspace workspace_;
};

}  // namespace pagedcore::cpu
