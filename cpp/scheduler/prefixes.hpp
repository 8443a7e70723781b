// Registered prefixes (section 4.4): computed by a request like any other, then kept by nobody's request until they are
// released and no request that names them is left.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "kv/flat_map.hpp"
#include "pagedcore/types.hpp"

namespace pagedcore::sched {

struct Request;

/// A registered prefix: a sequence that no request owns.
struct PinnedPrefix {
  PrefixId id{};
  std::vector<TokenId> tokens;
  std::uint64_t salt = 0;
  bool shared = false;           // usable under every salt
  std::uint64_t blocks = 0;      // that it holds, or will hold
  SequenceId sequence{};         // once it is computed
  Request* computing = nullptr;  // until then
  std::uint32_t users = 0;       // requests that name it
  bool released = false;
  std::size_t index = 0;  // in Prefixes::all()
};

class Prefixes {
 public:
  const std::vector<std::unique_ptr<PinnedPrefix>>& all() const noexcept { return all_; }
  /// One that can be named: null for one that is unknown or released.
  PinnedPrefix* find(PrefixId id) const noexcept;
  /// One that can be named under this salt: its own, or a shared one.
  PinnedPrefix* find(PrefixId id, std::uint64_t salt) const noexcept;
  /// Blocks that all of them hold or will hold, one that several share counted for each.
  std::uint64_t blocks() const noexcept { return blocks_; }
  /// Different blocks that those that are computed hold.
  std::uint32_t blocks_held() const noexcept { return blocks_held_; }

  /// Host memory for one more, and for the counts of `num_blocks` blocks.
  void reserve(std::uint32_t num_blocks);
  /// Nothing below can fail.
  PinnedPrefix& add(std::unique_ptr<PinnedPrefix> prefix) noexcept;
  void release(PinnedPrefix& prefix) noexcept;
  /// It has been computed: these are its blocks.
  void hold(PinnedPrefix& prefix, SequenceId sequence, std::span<const BlockId> table) noexcept;
  /// Forgets it, and `table`, its blocks, if it had been computed.
  void erase(PinnedPrefix& prefix, std::span<const BlockId> table) noexcept;

 private:
  std::vector<std::unique_ptr<PinnedPrefix>> all_;  // released ones as long as they are in use
  kv::FlatMap<PinnedPrefix*> by_id_;                // those that can be named
  std::uint64_t blocks_ = 0;
  std::vector<std::uint32_t> holders_;  // [num_blocks] prefixes, once there is any
  std::uint32_t blocks_held_ = 0;
};

}  // namespace pagedcore::sched
