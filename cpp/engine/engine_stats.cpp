#include "engine/engine_stats.hpp"

namespace pagedcore {

std::map<std::string, double> to_map(const EngineStats& stats) {
  std::map<std::string, double> map;
  each_field(stats, [&](const auto& owner, const auto& f) {
    const std::string name = name_in_engine(f);
    if (!name.empty()) map.emplace(name, static_cast<double>(owner.*f.member));
  });
  return map;
}

}  // namespace pagedcore
