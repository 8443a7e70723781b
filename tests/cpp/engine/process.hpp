// What a process shows of itself, and of a child.
#pragma once

#include <doctest/doctest.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <chrono>
#include <filesystem>
#include <set>
#include <string>
#include <thread>

namespace process {

/// CPU time of all threads.
inline double cpu_seconds() {
  rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](timeval t) { return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) * 1e-6; };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

/// What 300 ms of waiting cost. Again, up to 20 times, until it is less than `wanted`: threads spin for a moment before
/// they sleep, which may come late where others keep the cores busy.
inline double idle_seconds(double wanted) {
  double spent = wanted;
  for (int attempt = 0; attempt < 20 && spent >= wanted; ++attempt) {
    const double before = cpu_seconds();
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    spent = cpu_seconds() - before;
  }
  return spent;
}

inline std::set<std::string> thread_ids() {
  std::set<std::string> ids;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/task")) {
    ids.insert(entry.path().filename().string());
  }
  return ids;
}

/// A child that was forked ends by itself, within two minutes, and with status 0.
inline void check_success(pid_t child) {
  REQUIRE(child > 0);
  int status = -1;
  for (int i = 0; i < 12000 && waitpid(child, &status, WNOHANG) == 0; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
}

}  // namespace process
