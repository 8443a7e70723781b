// Symbol visibility. Everything is hidden unless it is marked PAGEDCORE_API.
#pragma once

#if defined(_WIN32)
#define PAGEDCORE_API
#else
#define PAGEDCORE_API __attribute__((visibility("default")))
#endif
