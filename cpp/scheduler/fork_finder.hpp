// Which samples of a group begin alike, when the group is recomputed.
#pragma once

#include <cstdint>
#include <vector>

#include "scheduler/request.hpp"

namespace pagedcore::sched {

/// For every sample finds the first of those before it with which it has most tokens in common. It compares each token
/// about once: samples are paths of a tree, and a table says which sample was the first to leave another one's path at
/// a given length with a given token.
class ForkFinder {
 public:
  /// Host memory for groups of so many samples; then find() cannot fail.
  void reserve(std::size_t samples);
  /// Sets fork_parent and fork_length of every unfinished sample; the first, the leader, forks from nobody. The last
  /// token of a sample is never shared, since its row is to be sampled. Returns how many tokens it has compared.
  std::uint64_t find(Request& request) noexcept;

 private:
  struct Branch {
    std::uint32_t sample = 0;  // that leaves ...
    std::uint32_t parent = 0;  // ... the path of this one
    std::uint32_t length = 0;  // behind so many tokens
    TokenId token = -1;        // with this one; -1: no entry
  };
  /// The place of a branch, or that where it belongs.
  Branch& branch(std::uint32_t parent, std::uint32_t length, TokenId token) noexcept;

  std::vector<Branch> branches_;  // open addressing, linear probing, at most half full
  std::size_t mask_ = 0;          // of the part in use
};

}  // namespace pagedcore::sched
