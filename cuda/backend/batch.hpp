// A step's batch on the device, and what its layers share.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "backend/checks.hpp"
#include "backend/staging.hpp"
#include "kernels/attention.hpp"
#include "kernels/attention_plan.hpp"
#include "pagedcore/backend.hpp"

namespace pagedcore::cuda {

/// Several arrays as one piece of device memory and one copy.
class ArrayUpload {
 public:
  /// Returns the array's offset, a multiple of 16.
  template <typename T>
  std::size_t add(std::span<const T> values) {
    return add_bytes(std::as_bytes(values));
  }
  /// Enqueues the copy.
  DeviceMemory send(Device& device, Staging& staging);

 private:
  std::size_t add_bytes(std::span<const std::byte> values);
  std::vector<std::byte> bytes_;
};

class CudaBatch final : public Batch {
 public:
  /// Throws InvalidArgument where the view contradicts itself.
  CudaBatch(Device& device, Staging& staging, const BatchView& view, std::int32_t block_size);

  std::int64_t rows() const noexcept override { return facts_.rows; }
  const BatchFacts& facts() const noexcept { return facts_; }
  std::span<const TokenId> host_tokens() const noexcept { return tokens_; }
  std::span<const std::int32_t> host_positions() const noexcept { return host_positions_; }

  const TokenId* tokens() const noexcept { return at<TokenId>(memory_, tokens_at_); }  // [rows]
  const std::int32_t* positions() const noexcept { return at<std::int32_t>(memory_, positions_at_); }
  const std::int32_t* row_tables() const noexcept { return at<std::int32_t>(memory_, row_tables_at_); }
  const std::uint32_t* tables(std::int32_t layer_group) const noexcept {
    return at<std::uint32_t>(memory_, tables_at_) + static_cast<std::size_t>(layer_group) * entries_;
  }

  /// cos and sin of every row, made when the first layer asks.
  struct Rotary {
    const void* inv_freq;
    std::int64_t num_frequencies;
    float magnitude;
    DeviceMemory angles;
    const float* cos() const noexcept { return reinterpret_cast<const float*>(angles.data()); }
    const float* sin(std::int64_t rows) const noexcept { return cos() + rows * num_frequencies; }
  };
  const Rotary& rotary(const RopeParams& rope) const;

  /// The work of attention for layers of one shape, layer group and window, with room for the states of split contexts.
  struct Work {
    AttentionShape shape;
    std::int32_t window;
    DeviceMemory arrays, states;
    AttentionArgs args;  // the fields that the plan gives
  };
  const Work& work(const AttentionShape& shape, std::int32_t window, std::size_t state_bytes) const;
  /// What layers share is made again: it was recorded and never submitted.
  void forget_shared() const noexcept {
    rotary_.clear();
    work_.clear();
  }

 private:
  template <typename T>
  static const T* at(const DeviceMemory& memory, std::size_t offset) noexcept {
    return reinterpret_cast<const T*>(memory.data() + offset);
  }

  Device& device_;
  Staging& staging_;
  BatchFacts facts_;
  std::vector<TokenId> tokens_;
  std::vector<std::int32_t> host_positions_;
  std::vector<TokenRange> ranges_;
  std::vector<std::uint32_t> tables_;
  std::size_t entries_;
  std::size_t tokens_at_ = 0, positions_at_ = 0, row_tables_at_ = 0, tables_at_ = 0;
  DeviceMemory memory_;
  mutable std::vector<std::unique_ptr<Rotary>> rotary_;
  mutable std::vector<std::unique_ptr<Work>> work_;
};

}  // namespace pagedcore::cuda
