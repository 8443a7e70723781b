// How calls fail, over every transport: bad arguments, ranks that disagree, that are lost, that abort.
#include <doctest/doctest.h>

#include <atomic>
#include <mutex>

#include "base/text.hpp"
#include "group.hpp"

using namespace comm_test;
using namespace std::chrono_literals;
using pagedcore::Aborted;
using pagedcore::Corrupt;
using pagedcore::InvalidArgument;
using pagedcore::str;
using pagedcore::comm::Patience;

namespace {

bool holds(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

template <class Body>
void over_every_transport(int ranks, Limits limits, const Body& body) {
  for (const Transport& transport : transports()) {
    CAPTURE(transport.name);
    const Ends ends = transport.make(ranks, limits);
    body(ends);
  }
}

}  // namespace

TEST_CASE("a rank knows its place") {
  over_every_transport(3, {}, [](const Ends& ends) {
    for (int r = 0; r < 3; ++r) CHECK(ends[static_cast<std::size_t>(r)]->rank() == r);
    for (const auto& end : ends) CHECK(end->size() == 3);
  });
}

// rule: comm.bad-arguments-say-nothing
TEST_CASE("bad arguments are refused before a peer hears of them, and the group goes on") {
  for (const Transport& transport : transports()) {
    CAPTURE(transport.name);
    CHECK_THROWS_WITH_AS(transport.make(0, {}), "a group of 0 ranks; ask for 1 to 256", InvalidArgument);
    CHECK_THROWS_AS(transport.make(257, {}), InvalidArgument);
    CHECK_THROWS_AS(transport.make(2, {0ms}), InvalidArgument);
    CHECK_THROWS_AS(transport.make(2, {1s, -1us}), InvalidArgument);
  }
  over_every_transport(2, {}, [](const Ends& ends) {
    std::vector<std::byte> four(4), five(5);
    const std::vector<std::span<const std::byte>> send{four, four};
    const std::vector<std::span<std::byte>> one{four}, unequal{five, five};
    CHECK_THROWS_AS(ends[0]->all_to_all(send, one), InvalidArgument);
    CHECK_THROWS_AS(ends[0]->all_to_all({}, one), InvalidArgument);
    CHECK_THROWS_WITH_AS(ends[0]->all_to_all(send, unequal),
                         "a rank sends 4 bytes to itself and has room for 5; both must be the same", InvalidArgument);
    CHECK_THROWS_AS(ends[0]->all_gather(four, one), InvalidArgument);
    CHECK_THROWS_AS(ends[0]->all_gather(four, unequal), InvalidArgument);
    CHECK_THROWS_AS(ends[0]->broadcast(four, 2), InvalidArgument);
    CHECK_THROWS_AS(ends[0]->broadcast(four, -1), InvalidArgument);
    for (const auto& t : run_ranks(2, [&](int r) { ends[static_cast<std::size_t>(r)]->barrier(); })) CHECK(!t);
  });
}

// rule: comm.disagreement-is-one-error
TEST_CASE("ranks in different calls, or with other roots or sizes, all hear of it") {
  for (int mine = 0; mine < kCalls; ++mine)
    for (int its = 0; its < kCalls; ++its) {
      if (mine == its) continue;
      over_every_transport(3, {20s}, [&](const Ends& ends) {
        CAPTURE(mine);
        CAPTURE(its);
        const auto start = std::chrono::steady_clock::now();
        const auto thrown = run_ranks(3, [&](int r) {
          // Whoever is done with the first call hears of it in a later one.
          for (int i = 0; i < 2; ++i) call(*ends[static_cast<std::size_t>(r)], r == 1 ? its : mine);
          call(*ends[static_cast<std::size_t>(r)], 3);
        });
        for (const auto& t : thrown) CHECK(holds(message<Corrupt>(t), "all ranks must make the same calls"));
        CHECK(since(start) < 10s);
      });
    }
  over_every_transport(2, {20s}, [](const Ends& ends) {
    const auto thrown = run_ranks(2, [&](int r) {
      std::vector<std::byte> memory(8);
      ends[static_cast<std::size_t>(r)]->broadcast(memory, r);
      ends[static_cast<std::size_t>(r)]->barrier();
    });
    for (const auto& t : thrown) CHECK(holds(message<Corrupt>(t), "all ranks must make the same calls"));
  });
  over_every_transport(2, {20s}, [](const Ends& ends) {
    const auto thrown = run_ranks(2, [&](int r) {
      std::vector<std::byte> memory(8 + static_cast<std::size_t>(r));
      std::vector<std::byte> other(8);
      const std::vector<std::span<std::byte>> receive{r == 0 ? memory : other, r == 1 ? memory : other};
      ends[static_cast<std::size_t>(r)]->all_gather(memory, receive);
      ends[static_cast<std::size_t>(r)]->barrier();
    });
    for (const auto& t : thrown)
      CHECK(message<Corrupt>(t) ==
            "rank 1 sent 9 bytes in all_gather where rank 0 has room for 8; both must know the same sizes");
  });
  over_every_transport(2, {20s}, [](const Ends& ends) {
    const auto thrown = run_ranks(2, [&](int r) {
      std::vector<std::byte> memory(r == 0 ? 9 : 8);
      ends[static_cast<std::size_t>(r)]->broadcast(memory, 0);
      ends[static_cast<std::size_t>(r)]->barrier();
    });
    for (const auto& t : thrown) CHECK(holds(message<Corrupt>(t), "rank 0 sent 9 bytes in broadcast"));
  });
}

// rule: comm.nothing-outlasts-the-deadline
TEST_CASE("a rank that does not come is named within the deadline, by every rank, and by every later call") {
  for (int which = 0; which < kCalls; ++which)
    over_every_transport(3, {150ms}, [&](const Ends& ends) {
      CAPTURE(which);
      const auto start = std::chrono::steady_clock::now();
      const auto thrown = run_ranks(3, [&](int r) {
        call(*ends[static_cast<std::size_t>(r)], 3);
        if (r == 2) {
          std::this_thread::sleep_for(400ms);
          return;
        }
        call(*ends[static_cast<std::size_t>(r)], which);
        call(*ends[static_cast<std::size_t>(r)], 3);  // the root of a broadcast waits for nobody
      });
      for (int r : {0, 1}) {
        CHECK(lost_rank(thrown[static_cast<std::size_t>(r)]) == 2);
        CHECK(holds(message<Aborted>(thrown[static_cast<std::size_t>(r)]), "rank 2 is lost"));
      }
      CHECK(since(start) < 5s);
      for (int later = 0; later < kCalls; ++later) CHECK_THROWS_AS(call(*ends[0], later), pagedcore::comm::LostPeer);
    });
}

// rule: comm.slow-is-not-lost
TEST_CASE("a rank that is slow, but within the deadline, is waited for; an idle one without end") {
  over_every_transport(2, {400ms}, [](const Ends& ends) {
    std::vector<std::byte> got(16);
    const auto thrown = run_ranks(2, [&](int r) {
      Communicator& comm = *ends[static_cast<std::size_t>(r)];
      if (r == 0) std::this_thread::sleep_for(150ms);
      comm.barrier();
      if (r == 0) std::this_thread::sleep_for(600ms);
      std::vector<std::byte> memory(r == 0 ? 5 : 16, std::byte(r == 0 ? 7 : 1));
      const std::size_t size = comm.broadcast(memory, 0, Patience::idle);
      if (r == 1) {
        CHECK(size == 5);
        got = memory;
      }
    });
    for (const auto& t : thrown) CHECK(message<std::exception>(t) == "(nothing was thrown)");
    CHECK(got[4] == std::byte(7));
    CHECK(got[5] == std::byte(1));
  });
}

TEST_CASE("a rank that leaves is lost to whoever needs it, at once") {
  for (int which = 0; which <= kCalls; ++which)
    for (const Transport& transport : transports()) {
      CAPTURE(transport.name);
      CAPTURE(which);
      Ends ends = transport.make(3, {60s});
      const auto start = std::chrono::steady_clock::now();
      const auto thrown = run_ranks(3, [&](int r) {
        auto& end = ends[static_cast<std::size_t>(r)];
        end->barrier();
        if (r == 0) {
          std::this_thread::sleep_for(50ms);
          end.reset();
          return;
        }
        std::vector<std::byte> memory(8);
        if (which == kCalls)  // an idle one hears of it too
          end->broadcast(memory, 0, Patience::idle);
        else
          for (int next : {which, 3}) call(*end, next);
      });
      CHECK(!thrown[0]);
      for (int r : {1, 2}) CHECK(lost_rank(thrown[static_cast<std::size_t>(r)]) == 0);
      CHECK(since(start) < 10s);
    }
}

TEST_CASE("ranks that leave after the last call take nothing from those still in it") {
  for (const Transport& transport : transports())
    for (int i = 0; i < 30; ++i) {
      CAPTURE(transport.name);
      Ends ends = transport.make(3, {60s});
      const auto thrown = run_ranks(3, [&](int r) {
        call(*ends[static_cast<std::size_t>(r)], i % kCalls);
        ends[static_cast<std::size_t>(r)].reset();
      });
      for (const auto& t : thrown) CHECK(message<std::exception>(t) == "(nothing was thrown)");
    }
}

// rule: comm.abort-wakes-everyone
TEST_CASE("abort wakes all who wait with its reason, and the first reason stays") {
  for (int which = 0; which < kCalls; ++which)
    over_every_transport(3, {60s}, [&](const Ends& ends) {
      CAPTURE(which);
      const auto start = std::chrono::steady_clock::now();
      const auto thrown = run_ranks(3, [&](int r) {
        Communicator& comm = *ends[static_cast<std::size_t>(r)];
        if (r == 2) {
          std::this_thread::sleep_for(50ms);
          comm.abort("the disk is full");
          comm.abort("again");
          comm.barrier();
        }
        for (int next : {which, which, 3}) call(comm, next);
      });
      for (const auto& t : thrown) CHECK(message<Aborted>(t) == "rank 2 ended the group: the disk is full");
      CHECK(since(start) < 10s);
    });
}

TEST_CASE("another thread's abort ends a call of this rank") {
  over_every_transport(2, {60s}, [](const Ends& ends) {
    std::thread other([&] {
      std::this_thread::sleep_for(50ms);
      ends[1]->abort("closing");
    });
    CHECK_THROWS_WITH_AS(ends[1]->barrier(), "rank 1 ended the group: closing", Aborted);
    other.join();
  });
}

// rule: comm.memory-is-the-callers-again
TEST_CASE("memory that was sent is not read after a call failed") {
  for (int round = 0; round < 20; ++round)
    over_every_transport(3, {60s}, [&](const Ends& ends) {
      run_ranks(3, [&](int r) {
        Communicator& comm = *ends[static_cast<std::size_t>(r)];
        // Each call has memory of its own: a late reader is seen by the sanitizers.
        for (int i = 0; i < 50; ++i) {
          std::vector<std::byte> send(100'000), receive(300'000);
          const std::span<std::byte> all(receive);
          const std::vector<std::span<std::byte>> to{all.first(100'000), all.subspan(100'000, 100'000),
                                                     all.last(100'000)};
          if (r == 2 && i == 2) comm.abort("enough");
          comm.all_gather(send, to);
        }
      });
    });
}
