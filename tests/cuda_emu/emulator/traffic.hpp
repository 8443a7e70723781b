// Bytes that kernels move between the multiprocessors and global memory, counted as a GPU counts them: in sectors of 32
// bytes, of which one instruction of one warp touches each once, whatever its lanes ask for. Loads and stores are seen
// in sources compiled with -fsanitize=kernel-address, whose calls end up here; cp.async always.
#pragma once

#include <cstdint>

namespace cuda_emu {

struct Traffic {
  std::uint64_t read_bytes = 0, written_bytes = 0;  // sectors x 32
  std::uint64_t requests = 0;                       // instructions of warps
  /// The sectors that were touched at all: what is left for memory where caches keep what is read again.
  std::uint64_t distinct_read_bytes = 0, distinct_written_bytes = 0;
};

/// Counts what runs from now on, from zero.
void count_traffic();
/// What has been counted; counting ends. Launches must have been waited for.
Traffic counted_traffic();

/// `place` tells instructions apart.
void note_access(const void* address, unsigned bytes, bool write, const void* place);
void end_of_block_traffic();

}  // namespace cuda_emu
