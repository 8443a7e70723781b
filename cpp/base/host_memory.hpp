// How much memory this process may still take: what the machine has available, within the limits of its control groups.
#pragma once

#include <cstddef>
#include <string>

#include "pagedcore/export.hpp"

namespace pagedcore {

/// Bytes. The largest value of the type when nothing can be learnt. `root` is put before every path that is read
/// (/proc/meminfo, /proc/self/cgroup, /sys/fs/cgroup/...), for tests.
PAGEDCORE_API std::size_t available_host_memory(const std::string& root = {});

/// What it may hold in all, whatever is taken now: the machine's memory, or less by the limits of its control groups.
std::size_t host_memory_limit(const std::string& root = {});

}  // namespace pagedcore
