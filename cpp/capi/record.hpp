// Values by name, as text.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "pagedcore/pagedcore.h"

struct pc_record {
  std::vector<std::pair<std::string, std::string>> values;
};
