// The handles that the backend returns: buffers, packed weights, KV storage.
#pragma once

#include <algorithm>

#include "backend/device.hpp"
#include "kernels/matmul.hpp"
#include "pagedcore/backend.hpp"
#include "sizes/sizes.hpp"

namespace pagedcore::cuda {

class CudaBuffer final : public Buffer {
 public:
  explicit CudaBuffer(DeviceMemory memory) : memory_(std::move(memory)) {}
  void* data() noexcept override { return memory_.data(); }
  std::size_t bytes() const noexcept override { return memory_.bytes(); }

 private:
  DeviceMemory memory_;
};

class CudaWeight final : public Weight {
 public:
  CudaWeight(const PackSpec& spec, DeviceMemory memory) : spec_(spec), memory_(std::move(memory)) {}
  std::int64_t n() const noexcept override { return spec_.n; }
  std::int64_t k() const noexcept override { return spec_.k; }
  std::size_t bytes() const noexcept override { return memory_.bytes(); }
  const PackSpec& spec() const noexcept { return spec_; }
  const std::byte* data() const noexcept { return memory_.data(); }
  MatmulLeaves leaves() const noexcept {
    if (spec_.leaf_ends.size() <= 1) return {};
    const auto aligned = [](std::int64_t end) { return end % 8 == 0; };
    return {reinterpret_cast<const MatmulLeaf*>(data() + spec_.tile_bytes_of_all()),
            static_cast<std::int32_t>(spec_.leaf_ends.size()), static_cast<std::int32_t>(spec_.groups()),
            std::ranges::all_of(spec_.leaf_ends, aligned)};
  }

 private:
  PackSpec spec_;
  DeviceMemory memory_;
};

class CudaKvStorage final : public KvStorage {
 public:
  CudaKvStorage(const KvShape& shape, std::uint32_t num_blocks, DeviceMemory memory)
      : shape_(shape), tile_(kv_tile_of(shape)), num_blocks_(num_blocks), memory_(std::move(memory)) {}
  const KvShape& shape() const noexcept override { return shape_; }
  std::uint32_t num_blocks() const noexcept override { return num_blocks_; }
  std::size_t block_bytes() const noexcept override {
    return static_cast<std::size_t>(kv_block_bytes(tile_, shape_.num_layers, shape_.num_kv_heads));
  }
  std::byte* data() const noexcept { return memory_.data(); }
  KvLayer layer(std::int32_t index) const noexcept {
    return {memory_.data() + kv_block_bytes(tile_, index, shape_.num_kv_heads),
            static_cast<std::int64_t>(block_bytes()), shape_.num_kv_heads, tile_};
  }

 private:
  KvShape shape_;
  KvTile tile_;
  std::uint32_t num_blocks_;
  DeviceMemory memory_;
};

}  // namespace pagedcore::cuda
