// What only groups of threads promise.
#include <doctest/doctest.h>
#include <sys/resource.h>

#include "comm/threads.hpp"
#include "group.hpp"

using namespace comm_test;
using namespace std::chrono_literals;
using pagedcore::comm::make_thread_group;
using pagedcore::comm::Patience;

namespace {

double cpu_seconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
         1e-6 * static_cast<double>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

}  // namespace

// rule: comm.idle-costs-nothing
TEST_CASE("ranks that wait for a step take no CPU") {
  for (const Transport& transport : transports()) {
    CAPTURE(transport.name);
    const Ends ends = transport.make(3, {});
    double taken = 0;
    const auto thrown = run_ranks(3, [&](int r) {
      Communicator& comm = *ends[static_cast<std::size_t>(r)];
      comm.barrier();
      if (r == 0) {
        const double before = cpu_seconds();
        std::this_thread::sleep_for(500ms);
        taken = cpu_seconds() - before;
      }
      std::vector<std::byte> memory(8);
      comm.broadcast(memory, 0, Patience::idle);
    });
    for (const auto& t : thrown) CHECK(!t);
    CHECK(taken < 0.05);  // two ranks that spun would take a second on two cores
  }
}
