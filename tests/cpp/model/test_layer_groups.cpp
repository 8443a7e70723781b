// What the division into layer groups costs, against what the windows need.
#include <doctest/doctest.h>

#include <algorithm>

#include "tiny_models.hpp"

using namespace tiny;

namespace {

/// Every `every`-th layer sees all, the others `window` tokens.
ModelDescription mixed(std::int32_t layers, std::int32_t every, std::int32_t window, std::int32_t max_context) {
  ModelDescription d = base_description();
  d.num_layers = layers;
  d.max_context = max_context;
  for (std::int32_t layer = 0; layer < layers; ++layer)
    d.attention.windows.push_back((layer + 1) % every == 0 ? 0 : window);
  return d;
}

/// Layer-tokens that a sequence of `context` tokens holds, over those that its layers need.
double overhead(const ModelDescription& d, std::int64_t context) {
  const LayerGroups groups = layer_groups(d);
  const auto held = [&](std::int64_t window) { return window == 0 ? context : std::min(window, context); };
  std::int64_t kept = 0, needed = 0;
  for (const std::uint32_t window : groups.windows) kept += groups.layers_per_group * held(window);
  for (const std::int32_t window : d.attention.windows) needed += held(window);
  return static_cast<double>(kept) / static_cast<double>(needed);
}

void check_places(const ModelDescription& d) {
  const LayerGroups groups = layer_groups(d);
  CHECK(groups.windows.size() <= 16);
  std::vector<int> used(groups.windows.size() * static_cast<std::size_t>(groups.layers_per_group));
  for (std::size_t layer = 0; layer < groups.layers.size(); ++layer) {
    const LayerGroups::Place& place = groups.layers[layer];
    CHECK(place.index < groups.layers_per_group);
    CHECK(groups.windows[static_cast<std::size_t>(place.layer_group)] ==
          static_cast<std::uint32_t>(d.attention.windows[layer]));
    ++used[static_cast<std::size_t>(place.layer_group * groups.layers_per_group + place.index)];
  }
  CHECK(*std::max_element(used.begin(), used.end()) == 1);
}

}  // namespace

TEST_CASE("layer groups of Gemma 3's sizes waste little at 32k tokens") {
  // 1B: 22 + 4 layers; 4B: 29 + 5; 12B: 40 + 8; 27B: 52 + 10.
  for (const std::int32_t layers : {26, 34, 48, 62}) {
    CAPTURE(layers);
    const ModelDescription d = mixed(layers, 6, 1024, 131072);
    CHECK(overhead(d, 32768) <= 1.05);
    check_places(d);
  }
  CHECK(overhead(mixed(18, 6, 512, 32768), 32768) == 1.0);
  CHECK(overhead(mixed(26, 2, 4096, 8192), 8192) == 1.0);  // Gemma 2: equally many of both
  check_places(mixed(97, 7, 128, 4096));
}

TEST_CASE("layers that divide evenly leave no place unused; more windows than groups are one group") {
  const LayerGroups even = layer_groups(mixed(48, 6, 1024, 131072));
  CHECK(even.layers_per_group == 8);
  CHECK(even.windows == std::vector<std::uint32_t>{0, 1024, 1024, 1024, 1024, 1024});
  ModelDescription d = mixed(20, 6, 64, 128);
  for (std::int32_t layer = 0; layer < 20; ++layer) d.attention.windows[static_cast<std::size_t>(layer)] = layer + 1;
  CHECK(layer_groups(d).windows == std::vector<std::uint32_t>{0});
  CHECK(layer_groups(d).layers_per_group == 20);
}
