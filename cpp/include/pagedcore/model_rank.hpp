// Ranks that share a model (tensor parallelism).
#pragma once

#include <cstdint>

#include "pagedcore/export.hpp"

namespace pagedcore {

struct ModelDescription;

/// Which of several ranks that share a model. Each has some of its heads, of the columns between the products of an MLP
/// or expert, and of the vocabulary; all have the residual stream. The bits of logits do not depend on the number of
/// ranks.
struct ModelRank {
  std::int32_t rank = 0;
  std::int32_t size = 1;
};

/// Throws InvalidArgument for more ranks than the model has query heads, or parts of its MLP, and Unsupported for a
/// model with a mechanism that ranks cannot share, each naming it.
PAGEDCORE_API void validate_ranks(const ModelDescription& description, std::int32_t size);

namespace comm {
class Communicator;
}

}  // namespace pagedcore
