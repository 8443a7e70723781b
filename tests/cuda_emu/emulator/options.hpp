// How the emulator orders what a GPU leaves open. Set by PAGEDCORE_CUDA_EMU=ascending|descending|random:<seed>, or by a
// test between launches.
#pragma once

#include <cstdint>

namespace cuda_emu {

enum class Order {
  ascending,   // of the threads that can run, the lowest; blocks from the first; stream operations as late as possible
  descending,  // the highest; blocks from the last; stream operations at once
  random,      // by seed
};

struct Options {
  Order order = Order::ascending;
  std::uint64_t seed = 1;
};
Options& options();

/// What ran since the program started.
struct Counters {
  std::uint64_t launches = 0, blocks = 0, threads = 0, switches = 0, barriers = 0, warp_ops = 0;
};
const Counters& counters();

}  // namespace cuda_emu
