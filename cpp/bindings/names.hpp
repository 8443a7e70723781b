// The strings that enums are in Python.
#pragma once

#include "bindings/records.hpp"
#include "pagedcore/sampling.hpp"
#include "pagedcore/scheduler.hpp"
#include "pagedcore/tensor.hpp"

namespace pagedcore::bindings {

inline constexpr EnumNames<FinishReason, 5> kFinishReasons{{"none", "stop", "length", "abort", "error"}};
inline constexpr EnumNames<CacheEventKind, 3> kCacheEvents{{"stored", "removed", "cleared"}};

}  // namespace pagedcore::bindings
