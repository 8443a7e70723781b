#include <doctest/doctest.h>

#include <random>
#include <unordered_map>

#include "kv/flat_map.hpp"

using pagedcore::kv::FlatMap;

TEST_CASE("FlatMap agrees with std::unordered_map under random insertions and erasures") {
  std::mt19937_64 random(1);
  FlatMap<int> map;
  std::unordered_map<std::uint64_t, int> model;
  CHECK(map.find(3) == nullptr);
  CHECK_FALSE(map.erase(3));
  for (int i = 0; i < 20000; ++i) {
    // Few distinct keys, and some far apart, so that runs of neighbours form, wrap around and break up.
    const std::uint64_t key = random() % 2 == 0 ? random() % 64 : ~std::uint64_t{0} - random() % 64;
    if (random() % 2 == 0) {
      map[key] = i;
      model[key] = i;
    } else {
      CHECK(map.erase(key) == (model.erase(key) == 1));
    }
    REQUIRE(map.size() == model.size());
    const int* found = map.find(key);
    REQUIRE((found != nullptr) == model.contains(key));
    if (found != nullptr) REQUIRE(*found == model[key]);
  }
  for (const auto& [key, value] : model) {
    REQUIRE(map.find(key) != nullptr);
    CHECK(*map.find(key) == value);
  }
}
