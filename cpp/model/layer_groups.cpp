// The division of a model's layers into layer groups, which share block tables.
#include <algorithm>
#include <map>
#include <numeric>

#include "pagedcore/model.hpp"

namespace pagedcore {

LayerGroups layer_groups(const ModelDescription& d) {
  constexpr std::int32_t kMostGroups = 16;  // tables, and blocks that are partly filled, for every one
  LayerGroups groups;
  const auto layers = static_cast<std::size_t>(d.num_layers);
  const auto window_of = [&](std::size_t layer) {
    return d.attention.windows.empty() ? 0u : static_cast<std::uint32_t>(std::max(0, d.attention.windows[layer]));
  };
  std::map<std::uint32_t, std::int32_t> count;  // layers, by window; full context comes first
  for (std::size_t layer = 0; layer < layers; ++layer) ++count[window_of(layer)];
  std::int32_t size = 0;
  for (const auto& [window, number] : count) size = std::gcd(size, number);
  const bool is_divided = size > 0 && d.num_layers / size <= kMostGroups;
  groups.layers_per_group = is_divided ? size : d.num_layers;
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
    groups.windows.insert(groups.windows.end(), static_cast<std::size_t>(number / size), window);
  }
  return groups;
}

}  // namespace pagedcore
