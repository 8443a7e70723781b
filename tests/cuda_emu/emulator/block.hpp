// One running block: its threads, its shared memory, and where they wait.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <functional>
#include <vector>

#include "emulator/fiber.hpp"
#include "emulator/launch.hpp"
#include "emulator/options.hpp"
#include "emulator/warp.hpp"

namespace cuda_emu {

enum class State : std::uint8_t { ready, at_barrier, in_warp_op, exited };

struct Copy {
  void* to;
  const void* from;  // null: zeros
  unsigned bytes;
};

struct CopyGroup {
  std::size_t end;  // within the thread's copies
};

// One of a block. What the emulator keeps in containers has types of its own: an instance that tests share could be the
// linker's choice, and that one is compiled for ThreadSanitizer.
struct Thread {
  Fiber fiber;
  uint3 index;
  State state = State::exited;
  Where where;                    // of the wait
  void* order = nullptr;          // to be acquired on waking up
  std::vector<Copy> copies;       // in flight, oldest first
  std::vector<CopyGroup> groups;  // committed
};

/// The running thread; null outside of kernels.
Thread* current_thread();
const Launch* current_launch();
unsigned thread_number();  // of the running thread within its block
/// Whether [p, p + bytes) is shared memory of the running block.
bool is_shared(const void* p, std::size_t bytes);

/// Runs block `index` of a launch to its end. `bank` chooses the fibers and the shared memory: blocks of different
/// banks are unordered for ThreadSanitizer, so that it sees races between blocks.
inline constexpr unsigned kBanks = 2;
void run_block(const Launch& launch, uint3 index, unsigned bank);
/// What blocks did is visible to the host from here on.
void end_of_launch();
void shared_memory_begin(unsigned bank, std::size_t dynamic_bytes);

/// Fills with poison_byte(), unseen by ThreadSanitizer.
void poison(void* p, std::size_t bytes);

std::uint64_t random_number();
void seed_random_numbers(std::uint64_t seed);
Counters& mutable_counters();

}  // namespace cuda_emu
