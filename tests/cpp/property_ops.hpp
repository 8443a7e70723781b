// How many random operations a property test makes: few by default, PAGEDCORE_PROPERTY_OPS=1000000 for a long run.
#pragma once

#include <cstdlib>

inline long property_ops(long by_default) {
  const char* text = std::getenv("PAGEDCORE_PROPERTY_OPS");
  return text != nullptr ? std::atol(text) : by_default;
}
