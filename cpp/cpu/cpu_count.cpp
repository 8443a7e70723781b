#include "cpu/cpu_count.hpp"

#include <algorithm>
#include <fstream>
#include <string>
#include <thread>

#if defined(__linux__)
#include <sched.h>

#include <memory>
#endif

namespace pagedcore::cpu {
namespace {

#if defined(__linux__)

struct CpuSetDeleter {
  void operator()(cpu_set_t* set) const noexcept { CPU_FREE(set); }
};

int affinity_count() {
  // The kernel refuses (EINVAL) a mask smaller than its own; 1024 CPUs first, then larger.
  for (int cpus = 1024; cpus <= 1 << 20; cpus *= 4) {
    const std::unique_ptr<cpu_set_t, CpuSetDeleter> set(CPU_ALLOC(static_cast<std::size_t>(cpus)));
    if (set == nullptr) break;
    const std::size_t bytes = CPU_ALLOC_SIZE(static_cast<std::size_t>(cpus));
    if (sched_getaffinity(0, bytes, set.get()) == 0) return CPU_COUNT_S(bytes, set.get());
  }
  return static_cast<int>(std::thread::hardware_concurrency());
}

/// CPUs' worth of time per period, rounded up; 0 when there is no limit. A container sees its own limit at these paths.
int cgroup_quota() {
  std::string quota;  // "max" or microseconds
  double period = 0;
  std::ifstream v2("/sys/fs/cgroup/cpu.max");
  if (!(v2 >> quota >> period)) {
    std::ifstream("/sys/fs/cgroup/cpu/cpu.cfs_quota_us") >> quota;
    std::ifstream("/sys/fs/cgroup/cpu/cpu.cfs_period_us") >> period;
  }
  if (quota.empty() || quota.find_first_not_of("0123456789") != std::string::npos || period <= 0) return 0;
  const double cpus = std::stod(quota) / period;
  return cpus < 1 << 20 ? static_cast<int>(cpus + 0.999) : 0;
}

#else

int affinity_count() { return static_cast<int>(std::thread::hardware_concurrency()); }
int cgroup_quota() { return 0; }

#endif

}  // namespace

int usable_cpus() {
  const int allowed = std::max(1, affinity_count());
  const int quota = cgroup_quota();
  return quota > 0 ? std::min(allowed, quota) : allowed;
}

}  // namespace pagedcore::cpu
