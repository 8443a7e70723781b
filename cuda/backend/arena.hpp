// Offsets within one piece of memory: which are taken, which are free. Arithmetic only.
#pragma once

#include <cstddef>
#include <map>
#include <optional>

namespace pagedcore::cuda {

class Arena {
 public:
  static constexpr std::size_t kAlignment = 256;  // what the widest accesses and copies want

  explicit Arena(std::size_t bytes);

  /// The offset of `bytes` (more than 0) that are free; the smallest gap that holds them. None: there is no such gap.
  std::optional<std::size_t> take(std::size_t bytes);
  /// Gives back what take() returned.
  void give_back(std::size_t offset) noexcept;

  std::size_t capacity() const noexcept { return capacity_; }
  std::size_t used() const noexcept { return used_; }
  std::size_t largest_gap() const noexcept;

 private:
  std::size_t capacity_, used_ = 0;
  std::map<std::size_t, std::size_t> gaps_;   // offset -> bytes; no two touch
  std::map<std::size_t, std::size_t> taken_;  // offset -> bytes
};

}  // namespace pagedcore::cuda
