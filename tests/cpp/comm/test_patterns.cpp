// Random patterns of messages over every transport, held against what a plain model says that each rank receives.
#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <random>

#include "../property_ops.hpp"
#include "base/text.hpp"
#include "comm/shared_memory.hpp"
#include "group.hpp"

using namespace comm_test;
using pagedcore::str;
using pagedcore::comm::Patience;

namespace {

std::byte content(int op, int from, int to, std::size_t i) {
  std::uint64_t x =
      (static_cast<std::uint64_t>(op) << 32 ^ static_cast<std::uint64_t>(from * 257 + to)) + i * 0x9e3779b9u;
  x ^= x >> 29;
  return static_cast<std::byte>(x * 0xbf58476d1ce4e5b9u >> 56);
}

/// One script, which every rank draws alike from the seed.
struct Script {
  Script(int ranks_, long seed) : ranks(ranks_), random(static_cast<std::uint64_t>(seed)) {}
  const int ranks;
  std::mt19937_64 random;

  int draw(int below) { return static_cast<int>(random() % static_cast<std::uint64_t>(below)); }
  std::size_t draw_size() {
    const int kind = draw(10);
    if (kind < 2) return 0;
    if (kind < 8) return static_cast<std::size_t>(1 + draw(300));
    return static_cast<std::size_t>(draw(kind == 8 ? 9'000 : 200'000));
  }
};

struct Rank {
  Communicator& comm;
  Script script;
  std::mt19937_64 own;  // what a rank does on its own must not matter
  int wrong = 0;
  std::span<std::byte> shared{};  // of ranks that can send in place

  /// Where this rank sends from: the vector, or the same bytes in shared memory.
  std::span<std::byte> sent_from(std::vector<std::byte>& bytes, std::size_t part) {
    if (shared.empty() || own() % 2 == 0) return bytes;
    const std::span<std::byte> at = shared.subspan(part * (shared.size() / 8), bytes.size());
    std::copy(bytes.begin(), bytes.end(), at.begin());
    return at;
  }

  std::vector<std::byte> filled(int op, int to, std::size_t size) const {
    std::vector<std::byte> bytes(size);
    for (std::size_t i = 0; i < size; ++i) bytes[i] = content(op, comm.rank(), to, i);
    return bytes;
  }
  void expect(int op, int from, int to, std::span<const std::byte> got) {
    for (std::size_t i = 0; i < got.size(); ++i) wrong += got[i] != content(op, from, to, i);
  }

  void all_to_all(int op) {
    const int n = script.ranks, self = comm.rank();
    std::vector<std::vector<std::byte>> out, in;
    std::vector<std::size_t> sizes;
    for (int pair = 0; pair < n * n; ++pair) sizes.push_back(script.draw_size());
    for (int r = 0; r < n; ++r) {
      out.push_back(filled(op, r, sizes[static_cast<std::size_t>(self * n + r)]));
      in.emplace_back(sizes[static_cast<std::size_t>(r * n + self)]);
    }
    const bool in_place = own() % 2 == 0;
    std::vector<std::span<std::byte>> from;
    for (std::size_t r = 0; r < out.size(); ++r) from.push_back(sent_from(out[r], r));
    const std::vector<std::span<const std::byte>> send(from.begin(), from.end());
    std::vector<std::span<std::byte>> receive(in.begin(), in.end());
    const auto me = static_cast<std::size_t>(self);
    if (in_place) receive[me] = from[me];
    comm.all_to_all(send, receive);
    for (int r = 0; r < n; ++r) expect(op, r, self, receive[static_cast<std::size_t>(r)]);
  }

  void all_gather(int op) {
    const int n = script.ranks, self = comm.rank();
    std::vector<std::vector<std::byte>> in;
    for (int r = 0; r < n; ++r) in.emplace_back(script.draw_size());
    const auto me = static_cast<std::size_t>(self);
    std::vector<std::byte> bytes = filled(op, n, in[me].size());
    const std::span<std::byte> send = sent_from(bytes, 0);
    std::vector<std::span<std::byte>> receive(in.begin(), in.end());
    if (own() % 2 == 0) receive[me] = send;
    comm.all_gather(send, receive);
    for (int r = 0; r < n; ++r) expect(op, r, n, receive[static_cast<std::size_t>(r)]);
    std::fill(send.begin(), send.end(), std::byte{0});  // it is this rank's again
  }

  void broadcast(int op) {
    const int n = script.ranks, root = script.draw(n);
    const std::size_t size = script.draw_size();
    const Patience patience = script.draw(2) == 0 ? Patience::idle : Patience::deadline;
    std::vector<std::byte> bytes =
        comm.rank() == root ? filled(op, n, size) : std::vector<std::byte>(size + own() % 50);
    const std::span<std::byte> at = sent_from(bytes, 0);
    const std::size_t got = comm.broadcast(at, root, patience);
    wrong += got != size;
    expect(op, root, n, at.first(got));
    std::fill(at.begin(), at.end(), std::byte{0});  // it is this rank's again
  }

  void run(int ops, std::atomic<int>& entered) {
    for (int op = 0; op < ops; ++op) {
      if (own() % 16 == 0) std::this_thread::sleep_for(std::chrono::microseconds(own() % 300));
      switch (script.draw(4)) {
        case 0:
          all_to_all(op);
          break;
        case 1:
          all_gather(op);
          break;
        case 2:
          broadcast(op);
          break;
        case 3:
          entered.fetch_add(1);
          comm.barrier();
          // Nobody is through before all have come.
          wrong += entered.load() < script.ranks * (1 + barriers_before);
          ++barriers_before;
      }
    }
  }
  int barriers_before = 0;
};

}  // namespace

// rule: comm.bytes-arrive-as-sent, comm.threads-copy-once, comm.shared-memory-is-read-in-place
TEST_CASE("every rank receives what the model says, whatever the pattern") {
  constexpr int kRanks[] = {1, 2, 3, 5, 8};
  for (const Transport& transport : transports())
    run_machines(600, 40, [&](long seed) {
      const int ranks = kRanks[seed % 5];
      CAPTURE(transport.name);
      CAPTURE(seed);
      const Ends ends = transport.make(ranks, {std::chrono::seconds(60), std::chrono::microseconds(seed % 2 * 30)});
      std::atomic<int> entered{0}, wrong{0};
      const auto thrown = run_ranks(ranks, [&](int r) {
        Rank rank{
            *ends[static_cast<std::size_t>(r)], {ranks, seed}, std::mt19937_64(static_cast<unsigned>(seed * 8 + r))};
        if (auto* group = dynamic_cast<pagedcore::comm::SharedMemoryGroup*>(&rank.comm))
          rank.shared = group->memory(8 * 200'064);
        rank.run(40, entered);
        wrong += rank.wrong;
      });
      for (const auto& t : thrown) CHECK(message<std::exception>(t) == "(nothing was thrown)");
      CHECK(wrong.load() == 0);
    });
}
