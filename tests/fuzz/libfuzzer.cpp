#include <cstdint>

#include "harness.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  pagedcore::fuzz::PAGEDCORE_FUZZ_HARNESS({reinterpret_cast<const std::byte*>(data), size});
  return 0;
}
