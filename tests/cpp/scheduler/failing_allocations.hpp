// Lets operator new fail at a chosen moment. Defined in test_out_of_memory.cpp, which replaces it for the whole
// program.
#pragma once

/// This many allocations of the calling thread succeed from now on, and the next throws std::bad_alloc; negative: all
/// succeed.
void fail_after_allocations(long count) noexcept;
