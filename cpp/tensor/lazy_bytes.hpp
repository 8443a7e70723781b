// What is in memory while a recoded matrix is read.
#pragma once

#include <cstddef>
#include <memory>
#include <mutex>
#include <vector>

#include "pagedcore/tensor.hpp"

namespace pagedcore {

/// The bytes of some tensors, read together when the first of them are wanted, and dropped when all that is made from
/// them has been read. Any thread may call.
class LazyBytes {
 public:
  using Parts = std::vector<std::vector<std::byte>>;
  /// `made`: bytes that are made from them.
  LazyBytes(std::vector<HostTensor> tensors, std::size_t made) : tensors_(std::move(tensors)), made_(made) {}

  std::shared_ptr<const Parts> get() const {
    const std::lock_guard lock(mutex_);
    if (parts_ == nullptr) {
      auto parts = std::make_shared<Parts>();
      for (const HostTensor& tensor : tensors_) {
        parts->emplace_back(tensor.size_bytes());
        read_bytes(tensor, 0, parts->back());
      }
      parts_ = std::move(parts);
      left_ = made_;
    }
    return parts_;
  }
  void done(std::size_t bytes) const {
    const std::lock_guard lock(mutex_);
    left_ -= bytes < left_ ? bytes : left_;
    if (left_ == 0) parts_.reset();
  }

 private:
  std::vector<HostTensor> tensors_;
  std::size_t made_;
  mutable std::mutex mutex_;
  mutable std::shared_ptr<const Parts> parts_;
  mutable std::size_t left_ = 0;
};

}  // namespace pagedcore
