// The strings that enums are in Python.
#pragma once

#include "bindings/records.hpp"
#include "pagedcore/sampling.hpp"
#include "pagedcore/scheduler.hpp"
#include "pagedcore/tensor.hpp"

namespace pagedcore::bindings {

inline constexpr EnumNames<FinishReason, 5> kFinishReasons{{"none", "stop", "length", "abort", "error"}};
inline constexpr EnumNames<EarlyStopping, 3> kEarlyStopping{{"heuristic", "immediate", "never"}};
inline constexpr EnumNames<PreemptionMode, 3> kPreemptionModes{{"auto", "swap", "recompute"}};
inline constexpr EnumNames<AllocationPolicy, 4> kAllocations{{"paged", "max", "pow2", "oracle"}};
inline constexpr EnumNames<ServiceOrder, 3> kOrders{{"fcfs", "priority", "fair"}};
inline constexpr EnumNames<AdmissionPolicy, 4> kAdmissions{{"known", "watermark", "never_evict", "adaptive"}};
inline constexpr EnumNames<VictimPolicy, 2> kVictims{{"cheapest", "last_arrival"}};
inline constexpr EnumNames<CacheEventKind, 3> kCacheEvents{{"stored", "removed", "cleared"}};
/// The first of DType.
inline constexpr EnumNames<DType, 3> kComputeTypes{{"f32", "bf16", "f16"}};

}  // namespace pagedcore::bindings
