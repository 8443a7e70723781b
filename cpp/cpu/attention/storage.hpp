// PagedStorage: the KV storage of the CPU, [block][layer][kv head][K tile | V tile] in one lazily zeroed mapping.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "cpu/attention/kernel.hpp"
#include "cpu/isa.hpp"
#include "pagedcore/backend.hpp"

namespace pagedcore::cpu::attention_detail {

/// Where a token's K and V lie inside one head's part of a block.
///
/// tiled (block_size a multiple of 16), per group of 16 tokens:
///   K  f32  [head_dim][16 tokens]          bf16  [head_dim / 2][16 tokens][2 dims]
///   V  f32  [16 tokens][value_dim]         bf16  [8 token pairs][value_dim][2 tokens]
/// Otherwise K and V are plain [block_size][head_dim]; attention packs them into such tiles piece by piece, so that a
/// small block wastes no memory on padding.
struct TileLayout {
  DType dtype = DType::f32;
  int head_dim = 0;
  int value_dim = 0;  // head_dim rounded up to 16
  int block_size = 0;
  bool tiled = false;
  std::size_t element = 0;      // bytes
  std::size_t k_group = 0;      // bytes of a 16-token K tile
  std::size_t v_group = 0;      // and V tile
  std::size_t v_offset = 0;     // of V inside a head's part
  std::size_t head_bytes = 0;   // K and V of one head
  std::size_t layer_bytes = 0;  // all heads of one layer
  std::size_t block_bytes = 0;

  /// Throws Unsupported or InvalidArgument for a shape that cannot be served.
  explicit TileLayout(const KvShape& shape);
};

/// Memory that attention needs besides the storage: per-worker rows and the open states of split contexts. Grown before
/// a parallel part starts, kept for the life of the storage.
class Workspace {
 public:
  /// At least `bytes` for each of `workers`; contents undefined. Throws OutOfMemory.
  void reserve(int workers, std::size_t bytes, std::size_t shared_bytes);
  char* of(int worker) noexcept { return aligned(memory_) + static_cast<std::size_t>(worker) * worker_bytes_; }
  char* shared() noexcept { return aligned(shared_memory_); }

 private:
  static char* aligned(std::vector<char>& v) noexcept {
    return reinterpret_cast<char*>((reinterpret_cast<std::uintptr_t>(v.data()) + 63) & ~std::uintptr_t{63});
  }
  std::vector<char> memory_, shared_memory_;
  std::size_t worker_bytes_ = 0;
};

class PagedStorage final : public KvStorage {
 public:
  PagedStorage(const KvShape& shape, std::uint32_t num_blocks, Isa isa);
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
  const AttentionKernels& kernels() const noexcept { return *kernels_; }
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
  const AttentionKernels* kernels_;
  char* memory_ = nullptr;
  std::size_t bytes_ = 0;
  mutable Workspace workspace_;
};

/// Writes a token, head_dim elements of the layout's type, to lane [0, 16) of a tile.
void pack_k(const TileLayout& layout, char* tile, int lane, const char* row) noexcept;
void pack_v(const TileLayout& layout, char* tile, int lane, const char* row) noexcept;
/// Writes a token's K and V to `slot` of one head's part of a block.
void write_slot(const TileLayout& layout, char* part, int slot, const char* k, const char* v) noexcept;

/// False when an element of V in `slot` is infinite or NaN.
bool finite_v(const TileLayout& layout, const char* part, int slot) noexcept;

}  // namespace pagedcore::cpu::attention_detail
