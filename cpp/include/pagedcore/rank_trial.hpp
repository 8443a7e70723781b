// Whether hosts can be ranks of one engine, before a model is there: for those who set them up.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "pagedcore/export.hpp"
#include "pagedcore/rank_process.hpp"

namespace pagedcore {

struct RankTrial {
  std::vector<std::string> hosts;  // what each rank said of itself, [ranks]
  double small_seconds = 0.0;      // of an exchange of 64 bytes between every two, the median
  double large_seconds = 0.0;      // of all to gather a mebibyte from each, the median
};

/// Meets as ranks of an engine do, says `host` of this one, measures and parts. `rank`: 0 listens. Throws as
/// serve_rank(), and InvalidArgument for fewer than 2 `ranks` and for a `host` of more than 1,000 bytes.
PAGEDCORE_API RankTrial try_ranks(const RankOptions& where, std::int32_t rank, std::int32_t ranks,
                                  const std::string& host);

}  // namespace pagedcore
