// How much a property test does, from the environment: PAGEDCORE_PROPERTY_OPS=10000000 makes a long run of it (few
// operations by default), PAGEDCORE_PROPERTY_SEED=8768 the machine of that seed alone, as it is in any run.
#pragma once

#include <algorithm>
#include <cstdlib>

/// Calls `run(seed)` for every machine of the run. Returns how many there were; 0 for one alone, which need not do
/// everything that a run does.
template <class Run>
long run_machines(long ops_by_default, long ops_per_machine, const Run& run) {
  const char* const one = std::getenv("PAGEDCORE_PROPERTY_SEED");
  if (one != nullptr) {
    run(std::atol(one));
    return 0;
  }
  const char* const ops = std::getenv("PAGEDCORE_PROPERTY_OPS");
  const long machines = std::max(1L, (ops != nullptr ? std::atol(ops) : ops_by_default) / ops_per_machine);
  for (long seed = 0; seed < machines; ++seed) run(seed);
  return machines;
}
