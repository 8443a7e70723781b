#include "emulator/launch.hpp"

#include <numeric>

#include "emulator/block.hpp"
#include "runtime/runtime.hpp"

namespace cuda_emu {
namespace {

/// A device refuses such a launch.
bool valid(const Launch& l) {
  const auto [gx, gy, gz] = l.grid;
  const auto [bx, by, bz] = l.block;
  const std::uint64_t threads = std::uint64_t{bx} * by * bz;
  return threads >= 1 && threads <= 1024 && bz <= 64 && gx >= 1 && gy >= 1 && gz >= 1 && gx <= 0x7fffffffu &&
         gy <= 65535 && gz <= 65535 && l.dynamic_shared_bytes <= max_dynamic_shared(l.kernel);
}

}  // namespace

void launch(Launch launch, cudaStream_t stream) {
  if (!valid(launch)) return set_last_error(cudaErrorInvalidConfiguration);
  note_launch_of(launch.kernel);
  enqueue(stream, [launch = std::move(launch)] { run(launch); });
}

void run(const Launch& launch) {
  const Options& how = options();
  Counters& totals = mutable_counters();
  seed_random_numbers(how.seed + totals.launches++);
  const std::uint64_t blocks = std::uint64_t{launch.grid.x} * launch.grid.y * launch.grid.z;
  // In random order, block i is (first + i * step) modulo the number of blocks.
  std::uint64_t first = 0, step = 1;
  if (how.order == Order::random) {
    first = random_number() % blocks;
    do step = random_number() % blocks + 1;
    while (std::gcd(step, blocks) != 1);
  } else if (how.order == Order::descending) {
    first = blocks - 1;
    step = blocks - 1;
  }
  const std::uint64_t left_out =
      how.only_last_blocks > 0 && how.only_last_blocks < blocks ? blocks - how.only_last_blocks : 0;
  if (left_out > 0) first = left_out, step = 1;
  for (std::uint64_t i = left_out, block = first; i < blocks; ++i, block = (block + step) % blocks) {
    const uint3 index{static_cast<unsigned>(block % launch.grid.x),
                      static_cast<unsigned>(block / launch.grid.x % launch.grid.y),
                      static_cast<unsigned>(block / launch.grid.x / launch.grid.y)};
    run_block(launch, index, static_cast<unsigned>(i % kBanks));
  }
  end_of_launch();
}

}  // namespace cuda_emu
