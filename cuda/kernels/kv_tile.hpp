// The inside of a KV tile on CUDA devices: arithmetic that host and device share.
//
// A storage is [block][layer][KV head][K tile | V tile]. A tile holds the keys (or values) of block_size tokens of one
// head: one row of head_dim elements after the other, then, for the 8-bit types, one f32 scale a token. A row's scale
// comes from that row alone, so that a token's bits never depend on its neighbours.
//
// Rows of 8-bit types are permuted within every 16 elements (kv_place), so that what one thread of a matrix instruction
// needs lies side by side: two bytes 2i and 2i + 1 hold elements i and i + 8.
#pragma once

#include <cstddef>
#include <cstdint>

#ifdef __CUDACC__
#define PC_HOST_DEVICE __host__ __device__
#else
#define PC_HOST_DEVICE
#endif

namespace pagedcore::cuda {

enum class KvType : std::uint8_t { f16, bf16, fp8_e4m3, int8 };

PC_HOST_DEVICE constexpr bool is_quantized(KvType type) { return type == KvType::fp8_e4m3 || type == KvType::int8; }
PC_HOST_DEVICE constexpr int element_bytes(KvType type) { return is_quantized(type) ? 1 : 2; }
/// The largest magnitude that a quantized element takes; a row's scale is its largest magnitude divided by this.
PC_HOST_DEVICE constexpr float quantized_max(KvType type) { return type == KvType::int8 ? 127.0f : 448.0f; }

/// Where element `d` of a quantized row is stored.
PC_HOST_DEVICE constexpr int kv_place(int d) { return d / 16 * 16 + d % 8 * 2 + d % 16 / 8; }

/// Head sizes that have kernels.
constexpr bool attention_supports(int head_dim) {
  return head_dim == 64 || head_dim == 80 || head_dim == 96 || head_dim == 112 || head_dim == 128 || head_dim == 256;
}

struct KvTile {
  KvType type = KvType::bf16;
  std::int32_t head_dim = 0;    // a multiple of 16
  std::int32_t block_size = 0;  // tokens

  PC_HOST_DEVICE constexpr std::int32_t row_bytes() const { return head_dim * element_bytes(type); }
  /// From the start of a tile to its first scale.
  PC_HOST_DEVICE constexpr std::int32_t scales_offset() const { return block_size * row_bytes(); }
  /// Of a K tile, and of a V tile; a multiple of 16.
  PC_HOST_DEVICE constexpr std::int32_t bytes() const {
    return scales_offset() + (is_quantized(type) ? (block_size * 4 + 15) / 16 * 16 : 0);
  }
};

/// One layer of a KV storage in device memory.
struct KvLayer {
  std::byte* data = nullptr;     // the layer's first tile of block 0, 16-byte aligned
  std::int64_t block_bytes = 0;  // from one block to the next, a multiple of 16
  std::int32_t num_kv_heads = 0;
  KvTile tile;

  /// Of a KV head's K tile from `data`; its V tile follows.
  PC_HOST_DEVICE constexpr std::int64_t tile_offset(std::uint32_t block, int kv_head) const {
    return std::int64_t{block} * block_bytes + std::int64_t{2} * kv_head * tile.bytes();
  }
};

/// Of a whole block, all layers.
constexpr std::int64_t kv_block_bytes(const KvTile& tile, int num_layers, int num_kv_heads) {
  return std::int64_t{2} * num_layers * num_kv_heads * tile.bytes();
}

}  // namespace pagedcore::cuda
