// How many CPUs this process may use.
#pragma once

namespace pagedcore::cpu {

/// CPUs in this process's affinity mask, limited by the quota of its cgroup where there is one; at least 1.
int usable_cpus();

}  // namespace pagedcore::cpu
