// The vocabulary that every room shares: identifiers of distinct types, and the plain records that cross rooms.
#pragma once

#include <cstdint>
#include <type_traits>

#include "pagedcore/fields.hpp"

namespace pagedcore {

/// A position in the vocabulary. Negative values are never valid tokens.
using TokenId = std::int32_t;

/// A physical KV block: an index in [0, num_blocks) of its pool.
enum class BlockId : std::uint32_t {};
inline constexpr BlockId kNoBlock{0xffffffffu};

/// One token sequence inside the scheduler and the KV cache (a request with n samples has n of them).
enum class SequenceId : std::uint64_t {};

/// One request, as handed out by Engine::submit or chosen by the user of a bare Scheduler.
enum class RequestId : std::uint64_t {};

/// A place for one block in the swap space: an index in [0, KvCacheConfig::num_swap_blocks).
enum class SwapSlot : std::uint32_t {};
inline constexpr SwapSlot kNoSlot{0xffffffffu};

/// A prefix that was registered to stay resident (Scheduler::register_prefix). 0 is "no prefix".
enum class PrefixId : std::uint64_t {};

/// Where an engine puts outputs for one of several takers (Engine::open_queue). 0 is the engine's own.
enum class QueueId : std::uint64_t {};

/// One engine step. Steps are numbered from 1 in the order in which they are planned; 0 is "before any step".
enum class StepId : std::uint64_t {};

template <class Id>
constexpr auto raw(Id id) noexcept {
  return static_cast<std::underlying_type_t<Id>>(id);
}

// Limits that several lists of fields and checks name.
inline constexpr std::uint32_t kMostBlocks = raw(kNoBlock) - 1;     // of a pool
inline constexpr std::int32_t kMostBlockSize = 256;                 // tokens, on any device
inline constexpr std::uint32_t kMostSamples = 65536;                // samples, or beams, of one request
inline constexpr int kMostThreads = 4096;                           // of the host, for one backend
inline constexpr std::uint32_t kMostCount = 0x7fffffff;             // of what a signed 32-bit number counts elsewhere
inline constexpr std::uint64_t kMostBytes = 0x7fff'ffff'ffff'ffff;  // of one purpose

/// A token, its log-probability and its place among all tokens.
struct TokenLogprob {
  TokenId token = -1;
  float logprob = 0.0f;
  std::int32_t rank = 0;

  template <class V>
  static void fields(V&& v) {
    using T = TokenLogprob;
    v(field("token", &T::token, ""));
    v(field("logprob", &T::logprob, ""));
    v(field("rank", &T::rank, "1 is the most likely."));
  }
};

/// Copy the first `num_tokens` token slots, of every layer, from block `src` to block `dst`.
struct BlockCopy {
  BlockId src{};
  BlockId dst{};
  std::uint32_t num_tokens = 0;

  template <class V>
  static void fields(V&& v) {
    using C = BlockCopy;
    v(field("src", &C::src, ""));
    v(field("dst", &C::dst, ""));
    v(field("num_tokens", &C::num_tokens, "Its first token slots, of every layer."));
  }

  friend bool operator==(const BlockCopy&, const BlockCopy&) = default;
};

/// Move the whole contents of a block out to a slot of the swap space, or in from there.
struct BlockSwap {
  BlockId block{};
  SwapSlot slot{};

  template <class V>
  static void fields(V&& v) {
    using S = BlockSwap;
    v(field("block", &S::block, ""));
    v(field("slot", &S::slot, "Of the swap space."));
  }

  friend bool operator==(const BlockSwap&, const BlockSwap&) = default;
};

}  // namespace pagedcore
