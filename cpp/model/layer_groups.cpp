// The division of a model's layers into layer groups, which share block tables.
#include <algorithm>
#include <limits>
#include <map>

#include "pagedcore/model.hpp"

namespace pagedcore {

namespace {

constexpr std::int32_t kMostGroups = 16;  // tables, and blocks that are partly filled, for every one

/// Layers, by window; full context, 0, comes first.
using Counts = std::map<std::uint32_t, std::int32_t>;

std::int32_t groups_of(const Counts& counts, std::int32_t size) {
  std::int32_t groups = 0;
  for (const auto& [window, number] : counts) groups += (number + size - 1) / size;
  return groups;
}

/// Tokens that places without a layer hold for a sequence as long as the model's context.
std::int64_t waste_of(const Counts& counts, std::int32_t size, std::int64_t max_context) {
  std::int64_t tokens = 0;
  for (const auto& [window, number] : counts) {
    const std::int64_t held = window == 0 ? max_context : std::min<std::int64_t>(window, max_context);
    tokens += ((number + size - 1) / size * std::int64_t{size} - number) * held;
  }
  return tokens;
}

/// The size with the least waste, of these the largest. One of num_layers makes a group for each window at most.
std::int32_t best_size(const Counts& counts, const ModelDescription& d) {
  std::int32_t best = d.num_layers;
  std::int64_t least = std::numeric_limits<std::int64_t>::max();
  for (std::int32_t size = d.num_layers; size >= 1; --size) {
    if (groups_of(counts, size) > kMostGroups) break;
    const std::int64_t waste = waste_of(counts, size, d.max_context);
    if (waste < least) least = waste, best = size;
  }
  return best;
}

}  // namespace

LayerGroups layer_groups(const ModelDescription& d) {
  LayerGroups groups;
  const auto layers = static_cast<std::size_t>(d.num_layers);
  const bool windows = !d.attention.windows.empty() && !d.attention.bidirectional;  // of those nothing outlives a step
  const auto window_of = [&](std::size_t layer) {
    return !windows ? 0u : static_cast<std::uint32_t>(std::max(0, d.attention.windows[layer]));
  };
  Counts count;
  for (std::size_t layer = 0; layer < layers; ++layer) ++count[window_of(layer)];
  const std::int32_t size = best_size(count, d);
  const bool is_divided = groups_of(count, size) <= kMostGroups;  // not so with more than 16 windows
  groups.layers_per_group = size;
  groups.layers.resize(layers);
  if (!is_divided) {
    groups.windows = {0};
    for (std::size_t layer = 0; layer < layers; ++layer) groups.layers[layer].index = static_cast<std::int32_t>(layer);
    return groups;
  }
  for (const auto& [window, number] : count) {
    std::int32_t placed = 0;
    const auto first = static_cast<std::int32_t>(groups.windows.size());
    for (std::size_t layer = 0; layer < layers; ++layer) {
      if (window_of(layer) != window) continue;
      groups.layers[layer] = {first + placed / size, placed % size};
      ++placed;
    }
    groups.windows.insert(groups.windows.end(), static_cast<std::size_t>((number + size - 1) / size), window);
  }
  return groups;
}

}  // namespace pagedcore
