#include "base/host_memory.hpp"

#include <algorithm>
#include <fstream>
#include <limits>
#include <locale>
#include <optional>

#include "base/text.hpp"

namespace pagedcore {
namespace {

constexpr std::size_t kUnlimited = std::numeric_limits<std::size_t>::max();

std::optional<std::size_t> read_number(const std::string& path) {  // none for "max" or a missing file
  std::ifstream file(path);
  file.imbue(std::locale::classic());  // the program's may group digits
  std::size_t value = 0;
  if (file >> value) return value;
  return std::nullopt;
}

/// The value after `key` in a file of "key value ..." lines.
std::optional<std::size_t> read_key(const std::string& path, const std::string& key) {
  std::ifstream file(path);
  file.imbue(std::locale::classic());
  std::string word, rest;
  while (file >> word) {
    std::size_t value = 0;
    if (word == key && file >> value) return value;
    file.clear();
    std::getline(file, rest);
  }
  return std::nullopt;
}

std::size_t of_machine(const std::string& root, const char* key) {
  const auto kib = read_key(root + "/proc/meminfo", key);
  return kib ? *kib * 1024 : kUnlimited;
}

/// What is left below one group's limit. Cached file pages that nobody uses count as left: the kernel drops them first.
std::size_t left_in_group(const std::string& folder, const char* limit, const char* usage, const char* reclaimable) {
  const auto most = read_number(folder + limit);
  const auto used = read_number(folder + usage);
  if (!most || !used) return kUnlimited;
  const std::size_t cache = std::min(*used, read_key(folder + "/memory.stat", reclaimable).value_or(0));
  const std::size_t taken = *used - cache;
  return *most > taken ? *most - taken : 0;
}

std::size_t limit_of_group(const std::string& folder, const char* limit, const char*, const char*) {
  return read_number(folder + limit).value_or(kUnlimited);
}

using OfGroup = std::size_t (*)(const std::string& folder, const char* limit, const char* usage,
                                const char* reclaimable);

/// Least of a group and its parents: each may have a limit. Inside a container the path may not exist below the mount;
/// the mount itself is then the container's group.
std::size_t least_of_groups(OfGroup of_group, const std::string& mount, std::string path, const char* limit,
                            const char* usage, const char* reclaimable) {
  std::size_t least = kUnlimited;
  while (true) {
    if (path == "/") path.clear();
    least = std::min(least, of_group(mount + path, limit, usage, reclaimable));
    if (path.empty()) return least;
    path.resize(path.rfind('/') == std::string::npos ? 0 : path.rfind('/'));
  }
}

std::size_t of_control_groups(const std::string& root, OfGroup of_group) {
  std::size_t least = kUnlimited;
  std::ifstream file(root + "/proc/self/cgroup");  // lines "hierarchy:controllers:path"; version 2 is "0::path"
  for (std::string line; std::getline(file, line);) {
    const auto first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = str(',', line.substr(first + 1, second - first - 1), ',');
    const std::string path = line.substr(second + 1);
    if (controllers == ",,") {  // version 2
      least = std::min(least, least_of_groups(of_group, root + "/sys/fs/cgroup", path, "/memory.max", "/memory.current",
                                              "inactive_file"));
    } else if (controllers.find(",memory,") != std::string::npos) {
      least = std::min(least, least_of_groups(of_group, root + "/sys/fs/cgroup/memory", path, "/memory.limit_in_bytes",
                                              "/memory.usage_in_bytes", "total_inactive_file"));
    }
  }
  return least;
}

}  // namespace

std::size_t available_host_memory(const std::string& root) {
  return std::min(of_machine(root, "MemAvailable:"), of_control_groups(root, left_in_group));
}

std::size_t host_memory_limit(const std::string& root) {
  return std::min(of_machine(root, "MemTotal:"), of_control_groups(root, limit_of_group));
}

}  // namespace pagedcore
