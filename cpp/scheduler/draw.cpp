// A picture of the scheduler, for those who look at it. It costs what its limits say, and one look at every block.
#include <algorithm>

#include "pagedcore/snapshot.hpp"
#include "scheduler/state.hpp"

namespace pagedcore::sched {
namespace {

class Artist {
 public:
  Artist(const SchedulerState& state, const SnapshotLimits& limits, EngineSnapshot& picture)
      : state_(state), limits_(limits), picture_(picture) {}

  void draw() {
    const KvCacheConfig& cache = state_.cache.config();
    picture_.num_blocks = cache.num_blocks;
    picture_.block_size = cache.block_size;
    picture_.num_layer_groups = state_.cache.num_layer_groups();
    picture_.num_swap_slots = cache.num_swap_blocks;
    picture_.blocks_per_cell = per_cell(cache.num_blocks);
    picture_.slots_per_cell = per_cell(cache.num_swap_blocks);
    picture_.cells = state_.cache.cells(picture_.blocks_per_cell);
    picture_.swap_cells.resize((cache.num_swap_blocks + picture_.slots_per_cell - 1) / picture_.slots_per_cell);

    if (const Request* first = state_.find(limits_.first)) add(*first);
    for (const Request* request = state_.running.front(); request != nullptr; request = request->place.next)
      add_but_first(*request);
    for (const auto& prefix : state_.prefixes.all())
      if (prefix->computing == nullptr) add_table({.prefix = prefix->id}, prefix->sequence);
    for (const Request* request = state_.swapped.front(); request != nullptr; request = SwappedQueue::next(*request))
      add_but_first(*request);
    add_waiting();
    picture_.requests_left_out = static_cast<std::uint32_t>(state_.requests.size() - picture_.requests.size());
  }

 private:
  std::uint32_t per_cell(std::uint32_t count) const noexcept {
    const std::uint32_t most = std::max(limits_.max_cells, 1u);
    return std::max((count - (count > 0)) / most + (count > 0), 1u);
  }

  /// Of those who wait no more are looked at than are listed.
  void add_waiting() {
    const TenantQueue& active = state_.waiting.active();
    for (const Tenant* tenant = active.front(); tenant != nullptr; tenant = TenantQueue::next(*tenant)) {
      for (const Request* request = tenant->waiting.front(); request != nullptr; request = request->place.next) {
        if (picture_.requests.size() >= limits_.max_requests) return;
        if (!request->swapped) add_but_first(*request);
      }
    }
  }

  void add_but_first(const Request& request) {
    if (request.id != limits_.first) add(request);
  }

  void add(const Request& request) {
    const bool listed = picture_.requests.size() < limits_.max_requests;
    if (listed) {
      std::uint32_t computed = 0;
      for (const Sample& sample : request.samples) computed = std::max(computed, sample.computed);
      picture_.requests.push_back({.id = request.id,
                                   .place = request.running   ? RequestPlace::running
                                            : request.swapped ? RequestPlace::swapped
                                                              : RequestPlace::waiting,
                                   .arrival = request.key.arrival,
                                   .prompt_tokens = request.limits.prompt_size,
                                   .output_tokens = request.generated(),
                                   .computed_tokens = computed,
                                   .cached_tokens = request.progress.cached_at_admission,
                                   .max_tokens = request.limits.max_tokens,
                                   .num_samples = static_cast<std::uint32_t>(request.samples.size()),
                                   .priority = request.key.priority});
    }
    for (std::uint32_t i = 0; i < request.samples.size(); ++i) {
      if (!request.samples[i].started) continue;
      add_table({.request = request.id, .sample = i}, request.samples[i].sequence, listed);
    }
  }

  void add_table(TablePicture table, SequenceId sequence, bool listed = true) {
    const std::span<const BlockId> blocks = state_.cache.block_table(sequence);
    const std::span<const SwapSlot> slots = state_.cache.swap_slots(sequence);
    for (const SwapSlot slot : slots) {
      if (slot == kNoSlot) continue;
      std::uint8_t& cell = picture_.swap_cells[raw(slot) / picture_.slots_per_cell];
      cell = static_cast<std::uint8_t>(std::min<int>(std::max<int>(cell, kOwnedCell - 1) + 1, 255));
    }
    std::vector<std::uint32_t>& entries = picture_.entries;
    if (!listed || entries.size() + blocks.size() + slots.size() > limits_.max_entries) {
      ++picture_.tables_left_out;
      return;
    }
    table.num_tokens = state_.cache.length(sequence);
    table.first_entry = static_cast<std::uint32_t>(entries.size());
    table.num_entries = static_cast<std::uint32_t>(blocks.size());
    table.swapped = !slots.empty();
    picture_.tables.push_back(table);
    for (const BlockId block : blocks) entries.push_back(raw(block));
    for (const SwapSlot slot : slots) entries.push_back(raw(slot));
  }

  const SchedulerState& state_;
  const SnapshotLimits& limits_;
  EngineSnapshot& picture_;
};

}  // namespace

void SchedulerState::draw(const SnapshotLimits& limits, EngineSnapshot& picture) const {
  Artist(*this, limits, picture).draw();
}

}  // namespace pagedcore::sched
