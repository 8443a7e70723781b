#include <utility>

#include "capi/outputs.hpp"

using namespace pagedcore;

pc_cache_events::pc_cache_events(std::vector<CacheEvent> taken) : events(std::move(taken)) {
  views.reserve(events.size());
  for (const CacheEvent& e : events) {
    const pc_cache_event_kind kind = e.kind == CacheEventKind::stored    ? PC_CACHE_STORED
                                     : e.kind == CacheEventKind::removed ? PC_CACHE_REMOVED
                                                                         : PC_CACHE_CLEARED;
    views.push_back({sizeof(pc_cache_event), kind, e.id, e.parent, e.salt, e.tokens.data(), e.tokens.size()});
  }
}

size_t pc_cache_events_count(const pc_cache_events* events) noexcept {
  return events == nullptr ? 0 : events->views.size();
}

const pc_cache_event* pc_cache_events_get(const pc_cache_events* events, size_t index) noexcept {
  return index < pc_cache_events_count(events) ? &events->views[index] : nullptr;
}

void pc_cache_events_free(pc_cache_events* events) noexcept { delete events; }
