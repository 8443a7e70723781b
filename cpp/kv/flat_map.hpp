// A small hash table from 64-bit ids to values: open addressing, linear probing, one allocation, no tombstones.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace pagedcore::kv {

template <class Value>
class FlatMap {
 public:
  std::size_t size() const noexcept { return size_; }
  bool empty() const noexcept { return size_ == 0; }

  /// Null when absent. The pointer lives until the next insertion or erasure.
  Value* find(std::uint64_t key) noexcept { return const_cast<Value*>(std::as_const(*this).find(key)); }
  const Value* find(std::uint64_t key) const noexcept {
    if (size_ == 0) return nullptr;
    for (std::size_t at = home(key); slots_[at].used; at = next(at)) {
      if (slots_[at].key == key) return &slots_[at].value;
    }
    return nullptr;
  }

  /// Room for `count` entries: up to that many insertions do not allocate.
  void reserve(std::size_t count) {
    if (2 * count > slots_.size()) rehash(std::bit_ceil(2 * count < 16 ? std::size_t{16} : 2 * count));
  }

  /// The entry of `key`, default-constructed when it is new. Throws std::bad_alloc, changing nothing.
  Value& operator[](std::uint64_t key) {
    if (Value* found = find(key)) return *found;
    reserve(size_ + 1);
    std::size_t at = home(key);
    while (slots_[at].used) at = next(at);
    slots_[at] = Slot{key, Value{}, true};
    ++size_;
    return slots_[at].value;
  }

  /// Entries behind the hole move back to where a probe will find them (Knuth, TAOCP 6.4, algorithm R).
  bool erase(std::uint64_t key) noexcept {
    if (size_ == 0) return false;
    std::size_t hole = home(key);
    while (slots_[hole].used && slots_[hole].key != key) hole = next(hole);
    if (!slots_[hole].used) return false;
    for (std::size_t at = next(hole); slots_[at].used; at = next(at)) {
      const std::size_t wanted = home(slots_[at].key);
      if (((at - wanted) & (slots_.size() - 1)) < ((at - hole) & (slots_.size() - 1))) continue;
      slots_[hole] = std::move(slots_[at]);
      hole = at;
    }
    slots_[hole] = Slot{};
    --size_;
    return true;
  }

 private:
  struct Slot {
    std::uint64_t key = 0;
    Value value{};
    bool used = false;
  };

  // Fibonacci hashing: ids are often consecutive, the high bits of the product spread them.
  std::size_t home(std::uint64_t key) const noexcept {
    return static_cast<std::size_t>((key * 0x9e3779b97f4a7c15u) >> shift_);
  }
  std::size_t next(std::size_t at) const noexcept { return (at + 1) & (slots_.size() - 1); }

  void rehash(std::size_t capacity) {
    std::vector<Slot> old(capacity);
    old.swap(slots_);
    shift_ = 64 - std::countr_zero(capacity);
    for (Slot& slot : old) {
      if (!slot.used) continue;
      std::size_t at = home(slot.key);
      while (slots_[at].used) at = next(at);
      slots_[at] = std::move(slot);
    }
  }

  std::vector<Slot> slots_;  // a power of two, at most half full
  std::size_t size_ = 0;
  int shift_ = 60;
};

}  // namespace pagedcore::kv
