// A picture of an engine between two of its steps, for those who look at it: where every block is, who holds which, and
// what the latest steps did. It is bounded, and holds no token.
#pragma once

#include <cstdint>
#include <vector>

#include "pagedcore/fields.hpp"
#include "pagedcore/types.hpp"

namespace pagedcore {

/// Bounds on a snapshot: what it takes of the engine thread's time, and of memory.
struct SnapshotLimits {
  std::uint32_t max_cells = 16384;
  std::uint32_t max_requests = 512;
  std::uint32_t max_entries = 65536;
  RequestId first{};

  template <class V>
  static void fields(V&& v) {
    using L = SnapshotLimits;
    v(field("max_cells", &L::max_cells,
            "Bytes of the map of blocks, and of that of swap slots: where there are more blocks, a cell is several.",
            in(1, 1 << 20)));
    v(field("max_requests", &L::max_requests, "Requests that are listed.", in(0, 1 << 16)));
    v(field("max_entries", &L::max_entries, "Entries of all block tables together.", in(0, 1 << 24)));
    v(field("first", &L::first, "A request that comes before all others, so that its block tables are there."));
  }
};

enum class RequestPlace : std::uint8_t { running, swapped, waiting };
template <>
struct Words<RequestPlace> {
  static constexpr Word<RequestPlace> list[] = {
      {RequestPlace::running, "running"}, {RequestPlace::swapped, "swapped"}, {RequestPlace::waiting, "waiting"}};
};

struct RequestPicture {
  RequestId id{};
  RequestPlace place = RequestPlace::waiting;
  double arrival = 0.0;
  std::uint32_t prompt_tokens = 0;
  std::uint32_t output_tokens = 0;
  std::uint32_t computed_tokens = 0;
  std::uint32_t cached_tokens = 0;
  std::uint32_t max_tokens = 0;
  std::uint32_t num_samples = 0;
  std::int32_t priority = 0;

  template <class V>
  static void fields(V&& v) {
    using R = RequestPicture;
    v(field("id", &R::id, ""));
    v(field("place", &R::place, "running, swapped (it waits with its KV in the swap space), or waiting."));
    v(field("arrival", &R::arrival, "On the engine's clock, in seconds."));
    v(field("prompt_tokens", &R::prompt_tokens, ""));
    v(field("output_tokens", &R::output_tokens, "Of the longest sample, so far."));
    v(field("computed_tokens", &R::computed_tokens, "Whose KV is there, of the longest sample."));
    v(field("cached_tokens", &R::cached_tokens, "Of them: found computed when it was last admitted."));
    v(field("max_tokens", &R::max_tokens, "Of the output."));
    v(field("num_samples", &R::num_samples, "Samples, or the width of a beam search."));
    v(field("priority", &R::priority, ""));
  }
};

/// The block table of a sample, of a beam, or of a registered prefix.
struct TablePicture {
  RequestId request{};
  PrefixId prefix{};
  std::uint32_t sample = 0;
  std::uint32_t num_tokens = 0;
  std::uint32_t first_entry = 0;
  std::uint32_t num_entries = 0;
  bool swapped = false;

  template <class V>
  static void fields(V&& v) {
    using T = TablePicture;
    v(field("request", &T::request, "Whose it is; 0: of a registered prefix."));
    v(field("prefix", &T::prefix, "Of a registered prefix; else 0."));
    v(field("sample", &T::sample, "Index within the request."));
    v(field("num_tokens", &T::num_tokens, "Token slots that it has."));
    v(field("first_entry", &T::first_entry, "Its place in EngineSnapshot::entries."));
    v(field("num_entries", &T::num_entries, "[blocks][groups of layers]"));
    v(field("swapped", &T::swapped, "As many entries follow those of the blocks: the slots of the swap space."));
  }
};

struct StepPicture {
  StepId step{};
  double start = 0.0;
  double seconds = 0.0;
  double plan_seconds = 0.0;
  std::uint32_t sequences = 0;
  std::uint32_t prefill_tokens = 0;
  std::uint32_t decode_tokens = 0;
  std::uint32_t preempted = 0;
  std::uint32_t swaps = 0;
  std::uint32_t copies = 0;

  template <class V>
  static void fields(V&& v) {
    using S = StepPicture;
    v(field("step", &S::step, ""));
    v(field("start", &S::start, "On the engine's clock, in seconds."));
    v(field("seconds", &S::seconds, "Planning, running and committing."));
    v(field("plan_seconds", &S::plan_seconds, "Of that: planning."));
    v(field("sequences", &S::sequences, "That computed something."));
    v(field("prefill_tokens", &S::prefill_tokens, "Rows of sequences that computed several."));
    v(field("decode_tokens", &S::decode_tokens, "Rows of sequences that computed one."));
    v(field("preempted", &S::preempted, "Requests."));
    v(field("swaps", &S::swaps, "Blocks moved to the swap space or back."));
    v(field("copies", &S::copies, "Blocks copied because a shared one was written."));
  }
};

/// A value of EngineSnapshot::cells, from kOwnedCell on: the tables that list the block, less one.
inline constexpr std::uint8_t kFreeCell = 0, kCachedCell = 1, kInFlightCell = 2, kOwnedCell = 3;

/// Lists hold at most what SnapshotLimits says.
struct EngineSnapshot {
  double time = 0.0;
  std::uint32_t num_blocks = 0;
  std::uint32_t block_size = 0;
  std::uint32_t num_layer_groups = 0;
  std::uint32_t blocks_per_cell = 1;
  std::uint32_t num_swap_slots = 0;
  std::uint32_t slots_per_cell = 1;
  std::uint32_t requests_left_out = 0;
  std::uint32_t tables_left_out = 0;
  std::vector<std::uint8_t> cells;
  std::vector<std::uint8_t> swap_cells;
  std::vector<RequestPicture> requests;
  std::vector<TablePicture> tables;
  std::vector<std::uint32_t> entries;
  std::vector<StepPicture> steps;

  template <class V>
  static void fields(V&& v) {
    using S = EngineSnapshot;
    v(field("time", &S::time, "On the engine's clock, in seconds."));
    v(field("num_blocks", &S::num_blocks, "Physical blocks."));
    v(field("block_size", &S::block_size, "Tokens per block."));
    v(field("num_layer_groups", &S::num_layer_groups, ""));
    v(field("blocks_per_cell", &S::blocks_per_cell, ""));
    v(field("num_swap_slots", &S::num_swap_slots, "Slots of the swap space."));
    v(field("slots_per_cell", &S::slots_per_cell, ""));
    v(field("requests_left_out", &S::requests_left_out, "That are not in `requests`."));
    v(field("tables_left_out", &S::tables_left_out, "Of requests that are: not in `tables`."));
    v(field("cells", &S::cells,
            "[blocks / blocks_per_cell] 0: free, 1: cached, 2: in flight, from 3 on: used by one table, by two, ... "
            "(252 and more are 255). Of several blocks the highest."));
    v(field("swap_cells", &S::swap_cells, "[slots / slots_per_cell] 0: free, 3 and more: as `cells`."));
    v(field("requests", &S::requests, "Running ones in the order of service, then those that wait."));
    v(field("tables", &S::tables, ""));
    v(field(
        "entries", &S::entries,
        "Of the tables, one behind the other: ids of blocks, 2^32 - 1 where there is none; then, of a table that is "
        "swapped, slots."));
    v(field("steps", &S::steps, "The latest, oldest first."));
  }
};

}  // namespace pagedcore
