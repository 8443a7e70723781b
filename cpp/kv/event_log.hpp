// Cache events on their way to whoever asked for them: bounded, and never a reason to fail.
#pragma once

#include <cstdint>
#include <new>
#include <span>
#include <utility>
#include <vector>

#include "pagedcore/kv_cache.hpp"

namespace pagedcore::kv {

class EventLog {
 public:
  explicit EventLog(std::uint32_t capacity) : capacity_(capacity) {}

  void stored(std::uint64_t id, std::uint64_t parent, std::uint64_t salt, std::span<const TokenId> tokens) noexcept {
    if (capacity_ == 0) return;
    try {
      put({CacheEventKind::stored, id, parent, salt, {tokens.begin(), tokens.end()}});
    } catch (const std::bad_alloc&) {
      cleared();
    }
  }
  void removed(std::uint64_t id) noexcept {
    if (capacity_ == 0) return;
    try {
      put({.kind = CacheEventKind::removed, .id = id});
    } catch (const std::bad_alloc&) {
      cleared();
    }
  }
  /// What was kept is of no use any more.
  void cleared() noexcept {
    events_.clear();
    is_cleared_ = capacity_ > 0;
  }

  std::vector<CacheEvent> take() {
    std::vector<CacheEvent> taken;
    if (is_cleared_) {
      taken.reserve(events_.size() + 1);
      taken.push_back({.kind = CacheEventKind::cleared});
      for (CacheEvent& event : events_) taken.push_back(std::move(event));
      events_.clear();
    } else {
      taken.swap(events_);
    }
    is_cleared_ = false;
    return taken;
  }

 private:
  void put(CacheEvent event) {
    if (events_.size() == capacity_) cleared();
    events_.push_back(std::move(event));
  }

  std::uint32_t capacity_;
  bool is_cleared_ = false;  // before all that is kept
  std::vector<CacheEvent> events_;
};

}  // namespace pagedcore::kv
