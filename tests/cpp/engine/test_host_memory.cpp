#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>
#include <limits>
#include <string>

#include "base/host_memory.hpp"
#include "engine/memory_plan.hpp"
#include "pagedcore/error.hpp"

using pagedcore::available_host_memory;

namespace {

/// A picture of /proc and /sys in a folder of its own.
class FakeRoot {
 public:
  FakeRoot() {
    std::string name = (std::filesystem::temp_directory_path() / "pagedcore-memory-XXXXXX").string();
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    path_ = name;
  }
  ~FakeRoot() { std::filesystem::remove_all(path_); }
  void write(const std::string& file, const std::string& text) const {
    std::filesystem::create_directories(std::filesystem::path(path_ + file).parent_path());
    std::ofstream(path_ + file) << text;
  }
  std::size_t available() const { return available_host_memory(path_); }
  std::size_t limit() const { return pagedcore::host_memory_limit(path_); }

 private:
  std::string path_;
};

constexpr const char* kMeminfo = "MemTotal:       1000 kB\nMemFree:         100 kB\nMemAvailable:    500 kB\n";

}  // namespace

TEST_CASE("without limits the machine's available memory counts") {
  const FakeRoot root;
  CHECK(root.available() == std::numeric_limits<std::size_t>::max());
  root.write("/proc/meminfo", kMeminfo);
  CHECK(root.available() == 500 * 1024);
  root.write("/proc/self/cgroup", "0::/\n");
  root.write("/sys/fs/cgroup/memory.max", "max\n");
  CHECK(root.available() == 500 * 1024);
}

TEST_CASE("control groups, version 2: the tightest of a group and its parents, caches counted as free") {
  const FakeRoot root;
  root.write("/proc/meminfo", kMeminfo);
  root.write("/proc/self/cgroup", "0::/a/b\n");
  root.write("/sys/fs/cgroup/a/b/memory.max", "max\n");
  root.write("/sys/fs/cgroup/a/memory.max", "100000\n");
  root.write("/sys/fs/cgroup/a/memory.current", "80000\n");
  CHECK(root.available() == 20000);
  root.write("/sys/fs/cgroup/a/memory.stat", "anon 7\ninactive_file 50000\nactive_file 3\n");
  CHECK(root.available() == 70000);
  root.write("/sys/fs/cgroup/a/memory.current", "200000\n");
  CHECK(root.available() == 0);
}

TEST_CASE("control groups, version 1") {
  const FakeRoot root;
  root.write("/proc/meminfo", kMeminfo);
  root.write("/proc/self/cgroup", "5:cpu,cpuacct:/x\n4:memory:/x\n");
  root.write("/sys/fs/cgroup/memory/memory.limit_in_bytes", "300000\n");  // the path is not there: a container's mount
  root.write("/sys/fs/cgroup/memory/memory.usage_in_bytes", "100000\n");
  CHECK(root.available() == 200000);
}

TEST_CASE("the limit is the machine's memory, or a control group's, whatever is taken now") {
  const FakeRoot root;
  CHECK(root.limit() == std::numeric_limits<std::size_t>::max());
  root.write("/proc/meminfo", kMeminfo);
  CHECK(root.limit() == 1000 * 1024);
  root.write("/proc/self/cgroup", "0::/a/b\n");
  root.write("/sys/fs/cgroup/a/b/memory.max", "max\n");
  root.write("/sys/fs/cgroup/a/memory.max", "100000\n");
  root.write("/sys/fs/cgroup/a/memory.current", "80000\n");
  CHECK(root.limit() == 100000);
}

TEST_CASE("a swap space that memory cannot hold is refused with the arithmetic") {
  pagedcore::MemoryPlan plan;
  plan.weights = 400;
  plan.activations = 100;
  plan.kv_block = 10;
  plan.num_blocks = 30;
  plan.swap = 200;
  CHECK_NOTHROW(pagedcore::check_swap_space(plan, true, 1000));  // 400 + 100 + 300 + 200
  CHECK_THROWS_WITH_AS(pagedcore::check_swap_space(plan, true, 999), doctest::Contains("at most 199 are left"),
                       pagedcore::InvalidArgument);
  CHECK_NOTHROW(pagedcore::check_swap_space(plan, false, 200));  // the rest is on a device
  CHECK_THROWS_AS(pagedcore::check_swap_space(plan, false, 199), pagedcore::InvalidArgument);
  plan.swap = 0;
  CHECK_NOTHROW(pagedcore::check_swap_space(plan, true, 1));
}

TEST_CASE("this machine has some memory") { CHECK(available_host_memory() > 1 << 20); }
