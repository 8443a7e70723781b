// Valid inputs from which mutations start.
#pragma once

#include <cstddef>
#include <vector>

namespace pagedcore::fuzz {

using Bytes = std::vector<std::byte>;

std::vector<Bytes> safetensors_seeds();
std::vector<Bytes> json_seeds();
std::vector<Bytes> description_seeds();

}  // namespace pagedcore::fuzz
