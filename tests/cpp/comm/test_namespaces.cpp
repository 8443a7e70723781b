// Two ranks in two network namespaces, with a cable between them: they meet by address, and a cable that is cut is
// found within the deadline. Needs root, `ip` and the kernel's virtual Ethernet; says so where there is none.
#include <doctest/doctest.h>
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>

#include "base/text.hpp"
#include "comm/tcp.hpp"
#include "group.hpp"

using namespace comm_test;
using namespace std::chrono_literals;
using pagedcore::str;

namespace {

constexpr int kNotHere = 77;

bool run_quietly(const std::string& command) { return std::system((command + " >/dev/null 2>&1").c_str()) == 0; }

/// What a rank does once its end of the cable is up; rank 0 cuts it. The exit status: 0 when all was as it should be.
int talk(int rank) {
  try {
    const auto comm = pagedcore::comm::join_tcp(member("10.77.0.1:4711", rank, 2, {1s}));
    for (int i = 0; i < 200; ++i) call(*comm, i % kCalls);
    if (rank == 0 && !run_quietly("ip link set cable0 down")) return 3;
    const auto start = std::chrono::steady_clock::now();
    try {
      for (;;) comm->barrier();
    } catch (const pagedcore::comm::LostPeer& e) {
      return e.rank() == 1 - rank && since(start) < 3s ? 0 : 4;
    }
  } catch (const std::exception& e) {
    std::fprintf(stderr, "rank %d: %s\n", rank, e.what());
  }
  return 5;
}

int status_of(pid_t child) {
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

}  // namespace

TEST_CASE("ranks in two network namespaces meet, and a cut cable is found within the deadline") {
  int ready[2];
  REQUIRE(pipe(ready) == 0);
  const pid_t second = fork();
  if (second == 0) {
    char byte = unshare(CLONE_NEWNET) == 0 ? 'y' : 'n';
    static_cast<void>(!write(ready[1], &byte, 1));
    if (byte == 'n') _exit(kNotHere);
    for (int i = 0; i < 200 && !run_quietly("ip link show cable1"); ++i) std::this_thread::sleep_for(50ms);
    if (!run_quietly("ip addr add 10.77.0.2/24 dev cable1 && ip link set cable1 up")) _exit(kNotHere);
    _exit(talk(1));
  }
  char byte = 'n';
  REQUIRE(read(ready[0], &byte, 1) == 1);
  const pid_t first = fork();
  if (first == 0) {
    const std::string cable = str("ip link add cable0 type veth peer name cable1 netns ", second);
    if (byte == 'n' || unshare(CLONE_NEWNET) != 0 || !run_quietly(cable) ||
        !run_quietly("ip addr add 10.77.0.1/24 dev cable0 && ip link set cable0 up"))
      _exit(kNotHere);
    _exit(talk(0));
  }
  const int one = status_of(first);
  if (one == kNotHere) kill(second, SIGKILL);
  const int two = status_of(second);
  close(ready[0]);
  close(ready[1]);
  if (one == kNotHere) {
    MESSAGE("not shown here: a network namespace needs root, `ip` and the kernel's virtual Ethernet");
    return;
  }
  CHECK(one == 0);
  CHECK(two == 0);
}
