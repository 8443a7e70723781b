// A WeightMap that owns what its tensors point into.
#pragma once

#include <deque>

#include "bindings/host_tensors.hpp"
#include "pagedcore/model.hpp"

namespace pagedcore::bindings {

/// Buffers are never dropped before the whole map is, so a copy of `map` stays valid, without the GIL, for as long as
/// its KeptWeights is referenced.
struct KeptWeights {
  WeightMap map;
  std::deque<TensorBytes> buffers;
};

}  // namespace pagedcore::bindings
