#include "scheduler/fork_finder.hpp"

#include <algorithm>
#include <bit>

namespace pagedcore::sched {

void ForkFinder::reserve(std::size_t samples) {
  if (2 * samples > branches_.size()) branches_.resize(std::bit_ceil(2 * samples));
}

ForkFinder::Branch& ForkFinder::branch(std::uint32_t parent, std::uint32_t length, TokenId token) noexcept {
  std::uint64_t hash = (std::uint64_t{parent} << 32 | length) * 0x9e3779b97f4a7c15u;
  hash = (hash ^ (hash >> 32) ^ static_cast<std::uint32_t>(token)) * 0x9fb21c651e98df25u;
  std::size_t at = static_cast<std::size_t>(hash >> 32) & mask_;
  for (; branches_[at].token >= 0; at = (at + 1) & mask_) {
    const Branch& found = branches_[at];
    if (found.parent == parent && found.length == length && found.token == token) break;
  }
  return branches_[at];
}

std::uint64_t ForkFinder::find(Request& request) noexcept {
  const std::uint32_t leader = request.leader();
  mask_ = std::bit_ceil(2 * request.samples.size()) - 1;
  std::fill_n(branches_.begin(), mask_ + 1, Branch{});
  std::uint64_t compared = 0;
  for (std::uint32_t k = 0; k < request.samples.size(); ++k) {
    Sample& sample = request.samples[k];
    if (sample.is_finished()) continue;
    sample.fork_length = 0;
    if (k == leader) continue;
    const std::uint32_t size = request.size(sample) - 1;
    // `parent` is the first sample that begins with the first `length` tokens; then that of a longer beginning.
    std::uint32_t parent = leader, length = request.limits.prompt_size;
    for (;;) {
      const Sample& other = request.samples[parent];
      const std::uint32_t most = std::min(size, request.size(other) - 1);
      for (; length < most && request.token(sample, length) == request.token(other, length); ++length) ++compared;
      if (length == size) break;
      ++compared;
      Branch& found = branch(parent, length, request.token(sample, length));
      if (found.token < 0) {
        found = {k, parent, length, request.token(sample, length)};
        break;
      }
      parent = found.sample;
      ++length;
    }
    sample.fork_parent = parent;
    sample.fork_length = std::min(length, sample.most_shared);
  }
  return compared;
}

}  // namespace pagedcore::sched
