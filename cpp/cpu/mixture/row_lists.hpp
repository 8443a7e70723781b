// Which rows go to which expert.
#pragma once

#include <cstdint>
#include <vector>

#include "pagedcore/backend.hpp"

namespace pagedcore::cpu {

/// The slots of all rows, sorted by expert, then by row.
struct RowLists {
  std::vector<std::int64_t> starts;  // [experts + 1]: of each expert's slots
  std::vector<std::int32_t> used;    // experts that have any, ascending
  std::vector<std::int32_t> rows;    // [slots]: whose it is
  std::vector<float> shares;         // [slots]

  /// Throws InvalidArgument for an expert outside [0, experts), or that does not follow the one before it.
  void fill(const Routing& routing, std::int64_t experts);
};

}  // namespace pagedcore::cpu
