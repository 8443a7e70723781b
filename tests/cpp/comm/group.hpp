// Groups of any transport whose ranks are threads of the test.
#pragma once

#include <doctest/doctest.h>

#include <chrono>
#include <cstddef>
#include <exception>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "comm/communicator.hpp"
#include "comm/meet.hpp"

namespace comm_test {

using pagedcore::comm::Communicator;
using pagedcore::comm::Limits;

using Ends = std::vector<std::unique_ptr<Communicator>>;
using Make = std::function<Ends(int ranks, Limits limits)>;

struct Transport {
  std::string name;
  Make make;
};

/// Those that the tests of all transports run over.
const std::vector<Transport>& transports();

/// What a rank of the tests brings to a meeting.
pagedcore::comm::Member member(const std::string& address, int rank, int ranks, Limits limits = {});
/// Has `ranks` threads meet; their ends by rank.
Ends join_all(int ranks, Limits limits,
              const std::function<std::unique_ptr<Communicator>(const pagedcore::comm::Member&)>& join,
              const std::string& address);
/// Of this machine, with a port that was free just now.
std::string free_address();
/// A path that is free, as an address.
std::string free_path();

inline std::chrono::milliseconds since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() - start);
}

/// body(rank) on a thread each; what each threw, or null.
inline std::vector<std::exception_ptr> run_ranks(int ranks, const std::function<void(int)>& body) {
  std::vector<std::exception_ptr> thrown(static_cast<std::size_t>(ranks));
  std::vector<std::thread> threads;
  for (int rank = 0; rank < ranks; ++rank)
    threads.emplace_back([&, rank] {
      try {
        body(rank);
      } catch (...) {
        thrown[static_cast<std::size_t>(rank)] = std::current_exception();
      }
    });
  for (std::thread& thread : threads) thread.join();
  return thrown;
}

/// The message of what was thrown when it is an E, else what it is instead.
template <class E>
std::string message(const std::exception_ptr& thrown) {
  if (!thrown) return "(nothing was thrown)";
  try {
    std::rethrow_exception(thrown);
  } catch (const std::exception& e) {
    return (dynamic_cast<const E*>(&e) != nullptr ? "" : "(another exception) ") + std::string(e.what());
  }
}

inline int lost_rank(const std::exception_ptr& thrown) {
  if (!thrown) return -1;
  try {
    std::rethrow_exception(thrown);
  } catch (const pagedcore::comm::LostPeer& e) {
    return e.rank();
  } catch (...) {
    return -2;
  }
}

/// The four calls with nothing to say, by number: any of them must fail in the same way.
inline void call(Communicator& comm, int which) {
  const auto ranks = static_cast<std::size_t>(comm.size());
  std::vector<std::byte> memory(2 * ranks * 8);
  std::vector<std::span<const std::byte>> send(ranks);
  std::vector<std::span<std::byte>> receive(ranks);
  for (std::size_t r = 0; r < ranks; ++r) {
    send[r] = std::span(memory).subspan(r * 8, 8);
    receive[r] = std::span(memory).subspan((ranks + r) * 8, 8);
  }
  if (which == 0) comm.all_to_all(send, receive);
  if (which == 1) comm.all_gather(send[0], receive);
  if (which == 2) comm.broadcast(receive[0], 0);
  if (which == 3) comm.barrier();
}
inline constexpr int kCalls = 4;

}  // namespace comm_test
