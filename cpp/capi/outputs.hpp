// Batches of outputs and of cache events, and the C views into them.
#pragma once

#include <vector>

#include "pagedcore/engine.hpp"
#include "pagedcore/pagedcore.h"

/// Owns the C++ outputs and, beside them, the arrays that C sees. Neither moves once it is built.
struct pc_outputs {
  explicit pc_outputs(std::vector<pagedcore::EngineOutput> outputs);

  std::vector<pagedcore::EngineOutput> outputs;
  std::vector<pc_token_logprob> tops;           // of all positions, one after another
  std::vector<pc_position_logprobs> positions;  // of all outputs: logprobs, then prompt logprobs
  std::vector<pc_output> views;
};

struct pc_cache_events {
  explicit pc_cache_events(std::vector<pagedcore::CacheEvent> events);

  std::vector<pagedcore::CacheEvent> events;
  std::vector<pc_cache_event> views;
};
