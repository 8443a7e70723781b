// An engine behind an opaque handle.
#pragma once

#include <span>

#include "capi/options.hpp"
#include "pagedcore/engine.hpp"
#include "pagedcore/pagedcore.h"

struct pc_engine {
  pagedcore::Engine engine;
};

namespace pagedcore::capi {

/// No more than a context holds: a length that is wrong is refused before a token behind the array is read.
inline std::span<const TokenId> context_of(const pc_engine& engine, const int32_t* tokens, size_t count,
                                           const char* name) {
  return tokens_of(tokens, count, name, engine.engine.memory_plan().max_context);
}

}  // namespace pagedcore::capi
