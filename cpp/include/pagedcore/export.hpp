// Symbol visibility. Everything is hidden unless it is marked PAGEDCORE_API, or belongs to a class that is;
// PAGEDCORE_HIDDEN hides a class inside such a class.
#pragma once

#if defined(_WIN32)
#define PAGEDCORE_API
#define PAGEDCORE_HIDDEN
#else
#define PAGEDCORE_API __attribute__((visibility("default")))
#define PAGEDCORE_HIDDEN __attribute__((visibility("hidden")))
#endif
