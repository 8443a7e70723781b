#include <unistd.h>

#include <atomic>
#include <mutex>

#include "base/text.hpp"
#include "comm/shared_memory.hpp"
#include "comm/tcp.hpp"
#include "comm/threads.hpp"
#include "group.hpp"

using namespace pagedcore::comm;

namespace comm_test {

Member member(const std::string& address, int rank, int ranks, Limits limits) {
  Member member;
  member.address = address;
  member.rank = rank;
  member.ranks = ranks;
  member.token = "a token of the tests";
  member.patience = std::chrono::seconds(30);
  member.limits = limits;
  return member;
}

Ends join_all(int ranks, Limits limits, const std::function<std::unique_ptr<Communicator>(const Member&)>& join,
              const std::string& address) {
  Ends ends(static_cast<std::size_t>(ranks < 1 ? 1 : ranks));
  const auto thrown = run_ranks(static_cast<int>(ends.size()), [&](int rank) {
    ends[static_cast<std::size_t>(rank)] = join(member(address, rank, ranks, limits));
  });
  for (const auto& t : thrown)
    if (t) std::rethrow_exception(t);
  return ends;
}

std::string free_address() {
  Address any("127.0.0.1:0");
  return bound_address(listen_at(any), any).text();
}

std::string free_path() {
  static std::atomic<int> made{0};
  return pagedcore::str("unix:/tmp/pagedcore-test-comm-", getpid(), "-", made++);
}

const std::vector<Transport>& transports() {
  static const std::vector<Transport> all = {
      {"threads", [](int ranks, Limits limits) { return make_thread_group(ranks, limits); }},
      {"shared memory",
       [](int ranks, Limits limits) { return join_all(ranks, limits, join_shared_memory, free_path()); }},
      {"tcp", [](int ranks, Limits limits) { return join_all(ranks, limits, join_tcp, free_address()); }},
  };
  return all;
}

}  // namespace comm_test
