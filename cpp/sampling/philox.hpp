// Philox4x32-10, the counter-based generator of Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011).
#pragma once

#include <array>
#include <cstdint>

namespace pagedcore::sampling {

using PhiloxCounter = std::array<std::uint32_t, 4>;
using PhiloxKey = std::array<std::uint32_t, 2>;

/// Ten rounds over the counter: 128 random bits, a pure function of its arguments.
PhiloxCounter philox4x32_10(PhiloxCounter counter, PhiloxKey key) noexcept;

}  // namespace pagedcore::sampling
