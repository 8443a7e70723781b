// Scheduler::check(): queues, samples and sequences against each other and against the cache.
#include "base/text.hpp"
#include "pagedcore/error.hpp"
#include "scheduler/state.hpp"

namespace pagedcore {

using sched::Request;
using sched::Sample;

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
  if ((started > 0) != request.running) throw Corrupt(str("request ", id, " is in the wrong queue"));
  if (request.evicted) throw Corrupt(str("request ", id, " is marked by a plan that is over"));
}

}  // namespace

void Scheduler::Impl::check() const {
  cache.check();
  std::size_t count = 0;
  std::uint64_t table_slots = 0;
  for (const sched::RequestQueue* queue : {&waiting, &running}) {
    std::uint32_t length = 0;
    for (const Request* request = queue->front(); request != nullptr; request = request->next) {
      ++length;
      if (request->running != (queue == &running)) throw Corrupt(str("request ", raw(request->id), " is misfiled"));
      if (find(request->id) != request) throw Corrupt(str("request ", raw(request->id), " is not found by its id"));
      if (request->next != nullptr && !request->is_before(*request->next)) {
        throw Corrupt(str("request ", raw(request->id), " is queued before an earlier one"));
      }
      check_request(*request, cache, raw(outstanding) != 0);
      for (const Sample& sample : request->samples) {
        if (sample.started) table_slots += cache.block_table(sample.sequence).size();
      }
    }
    if (length != queue->size()) throw Corrupt(str("a queue of ", length, " requests counts ", queue->size()));
    count += length;
  }
  if (count != requests.size()) throw Corrupt(str(count, " requests are queued and ", requests.size(), " known"));
  std::uint64_t references = 0;
  for (std::uint32_t block = 0; block < cache_config.num_blocks; ++block)
    references += cache.references(BlockId{block});
  if (references != table_slots) {
    throw Corrupt(str("sequences of requests list ", table_slots, " blocks, but ", references, " references are held"));
  }
  if (raw(outstanding) == 0 && cache.counts().in_flight != 0) throw Corrupt("blocks wait for a step that is over");
}

}  // namespace pagedcore
