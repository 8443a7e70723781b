// Ranks that are processes, and what may happen to a process: it is killed, stopped, started again.
#include <doctest/doctest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <random>

#include "base/text.hpp"
#include "comm/shared_memory.hpp"
#include "comm/tcp.hpp"
#include "group.hpp"

using namespace comm_test;
using namespace std::chrono_literals;
using namespace pagedcore::comm;
using pagedcore::str;

namespace {

struct ProcessTransport {
  std::string name;
  std::function<std::unique_ptr<Communicator>(const Member&)> join;
  std::function<std::string()> address;
};

const std::vector<ProcessTransport>& process_transports() {
  static const std::vector<ProcessTransport> all = {{"shared memory", join_shared_memory, free_path},
                                                    {"tcp", join_tcp, free_address}};
  return all;
}

/// A child that joins and calls all_to_all `calls` times, then does nothing, or without end. When that fails it exits,
/// with 0 if rank `expected` was lost then.
pid_t start_rank(const ProcessTransport& transport, const Member& member, int expected, int calls = -1) {
  const pid_t child = fork();
  if (child != 0) return child;
  int status = 1;
  try {
    const auto comm = transport.join(member);
    for (; calls != 0; --calls) call(*comm, 0);
    for (;;) pause();
  } catch (const LostPeer& e) {
    status = e.rank() == expected ? 0 : 2;
  } catch (...) {
    status = 3;
  }
  _exit(status);
}

struct Started {
  std::vector<pid_t> ranks;
  std::unique_ptr<Communicator> comm;  // of rank 0, which is the test
};

/// Ranks 1 ... as children of the test, which is rank 0. The children are forked before the test has any thread.
Started start(const ProcessTransport& transport, int ranks, Limits limits, int expected) {
  Started started;
  const std::string where = transport.address();
  for (int r = 1; r < ranks; ++r)
    started.ranks.push_back(start_rank(transport, member(where, r, ranks, limits), expected));
  started.comm = transport.join(member(where, 0, ranks, limits));
  return started;
}

int exit_status(pid_t child) {
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

int lost_in_calls(Communicator& comm) {
  try {
    for (;;) call(comm, 0);
  } catch (const LostPeer& e) {
    return e.rank();
  }
}

int lost_root(Communicator& comm) {
  try {
    std::vector<std::byte> memory(8);
    comm.broadcast(memory, 1, Patience::idle);
  } catch (const LostPeer& e) {
    return e.rank();
  }
  return -1;
}

}  // namespace

// rule: comm.a-killed-rank-is-named
TEST_CASE("a rank that is killed is named by all others at once, and a group made again goes on") {
  for (const ProcessTransport& transport : process_transports())
    for (int round = 0; round < 4; ++round) {
      CAPTURE(transport.name);
      CAPTURE(round);
      Started started = start(transport, 3, {20s}, 2);
      std::thread killer([&] {
        std::this_thread::sleep_for(std::chrono::milliseconds(5 * round));
        kill(started.ranks[1], SIGKILL);
      });
      const auto begin = std::chrono::steady_clock::now();
      CHECK(lost_in_calls(*started.comm) == 2);
      CHECK(since(begin) < 5s);
      killer.join();
      CHECK(exit_status(started.ranks[0]) == 0);
      CHECK(exit_status(started.ranks[1]) == -SIGKILL);
    }
}

TEST_CASE("a killed root is noticed by a rank that waits idly") {
  for (const ProcessTransport& transport : process_transports()) {
    CAPTURE(transport.name);
    const std::string where = transport.address();
    const pid_t root = start_rank(transport, member(where, 1, 2, {20s}), 0, 1);
    const auto comm = transport.join(member(where, 0, 2, {20s}));
    call(*comm, 0);
    std::thread killer([&] {
      std::this_thread::sleep_for(50ms);
      kill(root, SIGKILL);
    });
    const auto begin = std::chrono::steady_clock::now();
    CHECK(lost_root(*comm) == 1);
    CHECK(since(begin) < 5s);
    killer.join();
    exit_status(root);
  }
}

// rule: comm.a-stopped-rank-is-found
TEST_CASE("a rank that is stopped is found within the deadline, in a call and by an idle wait") {
  for (const ProcessTransport& transport : process_transports())
    for (const bool idle : {false, true}) {
      CAPTURE(transport.name);
      CAPTURE(idle);
      const std::string where = transport.address();
      const pid_t child = start_rank(transport, member(where, 1, 2, {1s}), 1, idle ? 1 : -1);
      const auto comm = transport.join(member(where, 0, 2, {1s}));
      call(*comm, 0);
      kill(child, SIGSTOP);
      const auto begin = std::chrono::steady_clock::now();
      CHECK((idle ? lost_root(*comm) : lost_in_calls(*comm)) == 1);
      CHECK(since(begin) < 2s);  // the deadline, and what a loaded machine takes
      // The one that was stopped hears what it has missed.
      kill(child, SIGCONT);
      if (!idle) CHECK(exit_status(child) == 0);
      if (idle) kill(child, SIGKILL), exit_status(child);
    }
}

TEST_CASE("random kills: nobody hangs, everybody who lives names the killed one") {
  std::mt19937_64 random(11);
  for (int round = 0; round < 10; ++round) {
    const ProcessTransport& transport = process_transports()[static_cast<std::size_t>(round % 2)];
    CAPTURE(transport.name);
    CAPTURE(round);
    const int ranks = 2 + static_cast<int>(random() % 3),
              victim = 1 + static_cast<int>(random() % static_cast<unsigned>(ranks - 1));
    Started started = start(transport, ranks, {20s}, victim);
    const auto wait = std::chrono::microseconds(random() % 8000);
    std::thread killer([&] {
      std::this_thread::sleep_for(wait);
      kill(started.ranks[static_cast<std::size_t>(victim - 1)], SIGKILL);
    });
    CHECK(lost_in_calls(*started.comm) == victim);
    killer.join();
    for (int r = 1; r < ranks; ++r)
      CHECK(exit_status(started.ranks[static_cast<std::size_t>(r - 1)]) == (r == victim ? -SIGKILL : 0));
  }
}

// rule: comm.frames-are-checked
TEST_CASE("a rank in whose memory or words something is wrong ends the group with one error") {
  // A child that has joined, and then writes noise where frames should be, on every descriptor that it has.
  for (int round = 0; round < 3; ++round) {
    const std::string address = free_address();
    const pid_t child = fork();
    if (child == 0) {
      try {
        const auto comm = join_tcp(member(address, 1, 2, {5s}));
        std::mt19937_64 random(static_cast<unsigned>(round));
        for (int fd = 3; fd < 64; ++fd) {
          char noise[100];
          for (char& c : noise) c = static_cast<char>(random());
          static_cast<void>(!send(fd, noise, sizeof noise, MSG_NOSIGNAL | MSG_DONTWAIT));
        }
        call(*comm, 0);
      } catch (...) {
      }
      _exit(0);
    }
    const auto comm = join_tcp(member(address, 0, 2, {5s}));
    std::string why;
    try {
      for (;;) call(*comm, 0);
    } catch (const pagedcore::Error& e) {
      why = e.what();
    }
    CHECK(why.find("rank 1: the peer sent what is no frame") != std::string::npos);
    exit_status(child);
  }
}
