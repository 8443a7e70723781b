// cp.async: a copy lands when its thread waits for its group, not before; until then the destination is poisoned.
#pragma once

#include <cstdint>

#include "emulator/failure.hpp"

namespace cuda_emu {

/// A null source copies zeros.
void copy_async(void* shared, const void* global, unsigned bytes, const Where& where);
void commit_copies();
void wait_for_copies(unsigned newest);

/// 16 bytes of one row of ldmatrix, read by the calling lane.
void read_shared_row(std::uint32_t (&words)[4], const void* row, const Where& where);

}  // namespace cuda_emu
