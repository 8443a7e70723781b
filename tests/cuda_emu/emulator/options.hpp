// How the emulator orders what a GPU leaves open. Set by
// PAGEDCORE_CUDA_EMU=ascending|descending|others-first|random:<seed>, or by a test between launches.
#pragma once

#include <cstdint>

namespace cuda_emu {

enum class Order {
  ascending,   // of the threads that can run, the lowest; blocks from the first; stream operations as late as possible
  descending,  // the highest; blocks from the last; stream operations at once
  others_first,  // as ascending, but the operations of every stream except the one that was made first at once: what
                 // they should have waited for, and did not, has not happened yet
  random,        // by seed
};

/// Of memory that holds nothing yet: 0xff, which is NaN in every type, and 0x7f by turns, which is a large number, as
/// maxima ignore a NaN. Which of them comes first depends on the order.
unsigned char poison_byte();

struct Options {
  Order order = Order::ascending;
  std::uint64_t seed = 1;
  std::uint64_t only_last_blocks = 0;  // of each launch; 0: all. For memory that is too large to be computed with
};
Options& options();

/// What ran since the program started.
struct Counters {
  std::uint64_t launches = 0, blocks = 0, threads = 0, switches = 0, barriers = 0, warp_ops = 0;
};
const Counters& counters();

}  // namespace cuda_emu
