// Lets operator new fail at a chosen moment. Defined in test_out_of_memory.cpp, which replaces it for the whole
// program.
#pragma once

/// How many allocations of this thread succeed before one throws std::bad_alloc; negative: all.
extern thread_local long allocations_until_failure;
