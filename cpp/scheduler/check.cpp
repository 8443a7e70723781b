// SchedulerState::check(): queues, samples and sequences against each other and against the cache.
#include <algorithm>
#include <set>

#include "base/text.hpp"
#include "pagedcore/error.hpp"
#include "scheduler/state.hpp"

namespace pagedcore::sched {

namespace {

void check_request(const Request& request, const KvCacheManager& cache, bool in_flight) {
  const auto id = raw(request.id);
  std::uint32_t unfinished = 0, unstarted = 0, started = 0;
  for (const Sample& sample : request.samples) {
    unfinished += !sample.is_finished();
    unstarted += !sample.is_finished() && !sample.started;
    started += sample.started;
    if (sample.started && sample.is_finished()) throw Corrupt(str("request ", id, ": a finished sample holds blocks"));
    if (!sample.started) continue;
    // A step in flight has reserved the slots that it computes.
    const std::uint32_t length = cache.length(sample.sequence);
    if (in_flight ? length < sample.computed : length != sample.computed) {
      throw Corrupt(str("request ", id, ": ", sample.computed, " tokens are computed and ", length, " slots reserved"));
    }
    if (sample.computed > request.size(sample)) throw Corrupt(str("request ", id, " computed tokens it does not know"));
  }
  if (unfinished != request.unfinished || unstarted != request.unstarted || unfinished == 0) {
    throw Corrupt(str("request ", id, ": its samples are miscounted"));
  }
  for (const Sample& sample : request.samples) {
    if (sample.started && cache.is_swapped(sample.sequence) != request.swapped) {
      throw Corrupt(str("request ", id, " and its sequences disagree about the swap space"));
    }
  }
  if (request.running && request.swapped) throw Corrupt(str("request ", id, " runs in the swap space"));
  if ((started > 0) != (request.running || request.swapped))
    throw Corrupt(str("request ", id, " is in the wrong queue"));
}

}  // namespace

void SchedulerState::check() const {
  cache.check();
  std::size_t count = 0;
  std::uint32_t num_swapped = 0;
  std::uint64_t table_slots = 0;
  const auto held = [&](SequenceId sequence) {
    const auto table = cache.block_table(sequence);
    return static_cast<std::uint64_t>(std::ranges::count_if(table, [](BlockId block) { return block != kNoBlock; }));
  };
  const auto check_queue = [&](const RequestQueue& queue, bool is_running) {
    std::uint32_t length = 0;
    for (const Request* request = queue.front(); request != nullptr; request = request->place.next) {
      ++length;
      num_swapped += request->swapped;
      if (request->running != is_running) throw Corrupt(str("request ", raw(request->id), " is misfiled"));
      if (find(request->id) != request) throw Corrupt(str("request ", raw(request->id), " is not found by its id"));
      if (request->place.next != nullptr && !request->is_before(*request->place.next)) {
        throw Corrupt(str("request ", raw(request->id), " is queued before an earlier one"));
      }
      check_request(*request, cache, raw(flight.step) != 0);
      for (const Sample& sample : request->samples) {
        if (sample.started) table_slots += held(sample.sequence);
      }
    }
    if (length != queue.size()) throw Corrupt(str("a queue of ", length, " requests counts ", queue.size()));
    count += length;
  };
  check_queue(running, true);
  std::uint32_t tenants_requests = 0;
  for (const auto& tenant : waiting.tenants()) {
    check_queue(tenant->waiting, false);
    if (tenant->listed > tenant->served) throw Corrupt(str("tenant ", tenant->id, " is listed behind its place"));
    tenants_requests += tenant->requests;
  }
  std::uint32_t listed = 0;
  waiting.each([&](const Request&) { ++listed; });
  if (listed != waiting.size() || count != listed + running.size() || tenants_requests != count) {
    throw Corrupt(str("tenants with ", tenants_requests, " requests have ", count, ", of which ", listed,
                      " are listed as ", "waiting and ", waiting.size(), " counted"));
  }
  for (const Request* request = swapped.front(); request != nullptr; request = request->swapped_place.next) {
    if (!request->swapped) throw Corrupt(str("request ", raw(request->id), " is listed as swapped out"));
  }
  if (swapped.size() != num_swapped) {
    throw Corrupt(str(num_swapped, " requests are swapped out and ", swapped.size(), " listed"));
  }
  std::uint64_t pinned = 0;
  std::set<BlockId> pinned_blocks;
  for (const auto& prefix : prefixes.all()) {
    pinned += prefix->blocks;
    std::uint32_t users = 0;
    each_request([&](const Request& request) { users += request.prefix_used == prefix.get(); });
    if (users != prefix->users)
      throw Corrupt(str("prefix ", raw(prefix->id), " counts ", prefix->users, " users of ", users));
    // One that was released before it was there only waits for its users to go.
    const bool is_there = raw(prefix->sequence) != 0;
    if (is_there ? prefix->computing != nullptr : prefix->computing == nullptr && !prefix->released) {
      throw Corrupt(str("prefix ", raw(prefix->id), " is neither there nor computed"));
    }
    if (raw(prefix->sequence) == 0) continue;
    table_slots += held(prefix->sequence);
    if (held(prefix->sequence) > prefix->blocks) {
      throw Corrupt(str("prefix ", raw(prefix->id), " holds ", held(prefix->sequence), " blocks, and ", prefix->blocks,
                        " are counted as pinned"));
    }
    for (const BlockId block : cache.block_table(prefix->sequence)) {
      if (block != kNoBlock) pinned_blocks.insert(block);
    }
    if (prefix->released && users == 0) throw Corrupt(str("prefix ", raw(prefix->id), " was released and stays"));
  }
  if (pinned != prefixes.blocks()) throw Corrupt(str(pinned, " blocks are pinned and ", prefixes.blocks(), " counted"));
  if (pinned_blocks.size() != prefixes.blocks_held()) {
    throw Corrupt(str("prefixes hold ", pinned_blocks.size(), " blocks, and ", prefixes.blocks_held(), " are counted"));
  }
  if (count != requests.size()) throw Corrupt(str(count, " requests are queued and ", requests.size(), " known"));
  std::uint64_t references = 0;
  for (std::uint32_t block = 0; block < cache_config.num_blocks; ++block)
    references += cache.references(BlockId{block});
  if (references != table_slots) {
    throw Corrupt(str("sequences of requests list ", table_slots, " blocks, but ", references, " references are held"));
  }
  if (raw(flight.step) == 0 && cache.counts().in_flight != 0) throw Corrupt("blocks wait for a step that is over");
}

}  // namespace pagedcore::sched
