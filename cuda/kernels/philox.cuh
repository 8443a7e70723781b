// Philox4x32-10 (Salmon et al., SC 2011), the stream of cpp/sampling/philox.cpp.
#pragma once

#include <cstdint>

#include "kernels/device.cuh"

namespace pagedcore::cuda {

/// In [0, 1) with 53 bits: key the seed, counter (position, sample).
__device__ inline double uniform(std::uint64_t seed, std::uint32_t sample, std::uint64_t position) {
  std::uint32_t c0 = static_cast<std::uint32_t>(position), c1 = static_cast<std::uint32_t>(position >> 32);
  std::uint32_t c2 = sample, c3 = 0;
  std::uint32_t k0 = static_cast<std::uint32_t>(seed), k1 = static_cast<std::uint32_t>(seed >> 32);
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = std::uint64_t{0xD2511F53u} * c0, p1 = std::uint64_t{0xCD9E8D57u} * c2;
    const std::uint32_t high0 = static_cast<std::uint32_t>(p0 >> 32), high1 = static_cast<std::uint32_t>(p1 >> 32);
    c0 = high1 ^ c1 ^ k0;
    c1 = static_cast<std::uint32_t>(p1);
    c2 = high0 ^ c3 ^ k1;
    c3 = static_cast<std::uint32_t>(p0);
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  const std::uint64_t word = std::uint64_t{c1} << 32 | c0;
  return static_cast<double>(word >> 11) * 0x1.0p-53;
}

}  // namespace pagedcore::cuda
