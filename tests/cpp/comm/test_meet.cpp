// Who is let in, who is turned away and what each is told; strangers hold up nobody.
#include <doctest/doctest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <fstream>
#include <random>

#include "base/text.hpp"
#include "comm/bytes.hpp"
#include "comm/frame.hpp"
#include "comm/shared_memory.hpp"
#include "comm/sockets.hpp"
#include "comm/tcp.hpp"
#include "group.hpp"
#include "pagedcore/version.hpp"

using namespace comm_test;
using namespace std::chrono_literals;
using namespace pagedcore::comm;
using pagedcore::Corrupt;
using pagedcore::InvalidArgument;
using pagedcore::Io;
using pagedcore::str;

namespace {

bool holds(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

/// Rank 0 and another, which `change` makes a wrong one; what each threw, rank 0 first.
std::vector<std::exception_ptr> meet_with(const std::function<void(Member&)>& change) {
  const std::string where = free_address();
  return run_ranks(2, [&](int r) {
    Member m = member(where, r, 2);
    m.alike = {{"model", "sha256:12"}, {"dtype", "bfloat16"}};
    m.patience = r == 0 ? 800ms : 5000ms;
    if (r == 1) change(m);
    join_tcp(m);
  });
}

/// What a stranger says to rank 0 while the right rank comes a moment later; both must meet.
void stranger_says(const std::function<void(const Socket&)>& say) {
  const std::string where = free_address();
  std::atomic<bool> said{false};
  std::vector<std::exception_ptr> thrown = run_ranks(3, [&](int r) {
    if (r == 2) {
      const Socket socket = connect_to(Address(where), Clock::now() + 10s);
      say(socket);
      said = true;
      while (!said) std::this_thread::sleep_for(1ms);
      std::this_thread::sleep_for(30ms);
      return;
    }
    while (r == 1 && !said) std::this_thread::sleep_for(1ms);
    const auto comm = join_tcp(member(where, r, 2));
    comm->barrier();
  });
  for (const auto& t : thrown) CHECK(message<std::exception>(t) == "(nothing was thrown)");
}

void say_bytes(const Socket& to, std::span<const std::byte> bytes) {
  static_cast<void>(!send(to.fd(), bytes.data(), bytes.size(), MSG_NOSIGNAL));
}

struct TokenFile {
  std::string path = str("/tmp/pagedcore-test-token-", getpid());
  TokenFile(const std::string& text, mode_t mode) {
    std::ofstream(path) << text;
    chmod(path.c_str(), mode);
  }
  ~TokenFile() { std::remove(path.c_str()); }
};

}  // namespace

// rule: comm.who-differs-is-told
TEST_CASE("a rank that differs is told in what, and rank 0 says whom it turned away") {
  const auto refused = [](const std::function<void(Member&)>& change, const std::string& why) {
    const auto thrown = meet_with(change);
    CHECK(holds(message<InvalidArgument>(thrown[1]), why));
    CHECK(lost_rank(thrown[0]) == 1);
    CHECK(holds(message<LostPeer>(thrown[0]), why));
  };
  refused([](Member& m) { m.token = "another token of the tests"; },
          "its token is another one; give every rank the same token file");
  refused([](Member& m) { m.alike[1].second = "float32"; }, "its dtype is 'float32' and rank 0's is 'bfloat16'");
  refused([](Member& m) { m.alike[0].second = "sha256:13"; }, "its model is 'sha256:13'");
  refused([](Member& m) { m.alike.pop_back(); }, "it compares other things than rank 0 does");
  refused([](Member& m) { m.limits.deadline = 7s; }, "its deadline is '7000 ms'");
  refused([](Member& m) { m.ranks = 3; }, "it expects 3 ranks and rank 0 expects 2");
}

TEST_CASE("a duplicate rank is refused, and one without a number gets one that is free") {
  const std::string where = free_address();
  std::atomic<bool> first_came{false};
  std::atomic<int> ranks_sum{0};
  const auto thrown = run_ranks(4, [&](int r) {
    if (r >= 2)
      while (!first_came) std::this_thread::sleep_for(1ms);
    if (r == 2) std::this_thread::sleep_for(100ms);
    Member m = member(where, r == 0 ? 0 : r == 2 ? 1 : r == 1 ? 1 : -1, r == 0 ? 3 : 0);
    if (r == 3) std::this_thread::sleep_for(600ms);
    if (r == 1) {
      first_came = true;
    }
    const auto comm = join_tcp(m);
    ranks_sum += comm->rank();
    CHECK(comm->size() == 3);
    comm->barrier();
  });
  for (int r : {0, 3}) CHECK(message<std::exception>(thrown[static_cast<std::size_t>(r)]) == "(nothing was thrown)");
  // Either of the two that say 1 may be the first.
  const std::string a = message<std::exception>(thrown[1]), b = message<std::exception>(thrown[2]);
  CHECK(holds(a + b, "rank 1 has joined already, from 127.0.0.1; give every rank another number"));
  CHECK(holds(a + b, "(nothing was thrown)"));
  CHECK(ranks_sum == 3);
}

TEST_CASE("what cannot be a member is refused before anybody is asked") {
  const auto wrong = [](const std::function<void(Member&)>& change) {
    Member m = member("127.0.0.1:1", 1, 2);
    m.patience = 100ms;
    change(m);
    CHECK_THROWS_AS(join_tcp(m), InvalidArgument);
  };
  for (const char* address : {"", "host", "host:", "host:x", "host:99999", "unix:", ":123456"})
    wrong([&](Member& m) { m.address = address; });
  wrong([](Member& m) { m.address = "unix:" + std::string(200, 'x'); });
  wrong([](Member& m) { m.rank = 2; });
  wrong([](Member& m) { m.rank = -2; });
  wrong([](Member& m) { m.token = "short"; });
  wrong([](Member& m) { m.limits.deadline = 0ms; });
  CHECK_THROWS_AS(join_shared_memory(member("127.0.0.1:1", 0, 2)), InvalidArgument);
}

TEST_CASE("nobody listens, the port is in use, a rank does not come: errors that say so, in time") {
  const auto start = Clock::now();
  Member m = member(free_address(), 1, 2);
  m.patience = 200ms;
  CHECK_THROWS_AS(join_tcp(m), Io);
  const Address any("127.0.0.1:0");
  const Socket taken = listen_at(any);
  m.address = bound_address(taken, any).text();
  m.rank = 0;
  CHECK_THROWS_AS(join_tcp(m), Io);
  const std::string path = free_path();
  const Socket local = listen_at(Address(path));
  m.address = path;
  CHECK_THROWS_AS(join_shared_memory(m), Io);
  unlink(path.substr(5).c_str());  // behind "unix:"
  m.address = free_address();
  m.ranks = 3;
  std::string why;
  try {
    join_tcp(m);
  } catch (const LostPeer& e) {
    why = e.what();
  }
  CHECK(why == "of 3 ranks these did not come within 200 ms: 1, 2");
  // Somebody listens, and is none of us.
  m.address = bound_address(taken, any).text();
  m.rank = 1;
  m.ranks = 2;
  std::thread other([&] {
    const Socket socket = accept_from(taken, Clock::now() + 5s);
    const char text[] = "220 mail.example ESMTP, and more than a header's length";
    say_bytes(socket, std::as_bytes(std::span(text)));
    std::this_thread::sleep_for(100ms);
  });
  m.patience = 5s;
  CHECK_THROWS_WITH_AS(join_tcp(m), str(m.address, ": the peer sent what is no frame of pagedcore").c_str(), Corrupt);
  other.join();
  CHECK(since(start) < 8s);
}

// rule: comm.strangers-hold-up-nobody
TEST_CASE("garbage, half a message, silence and old words hold up nobody") {
  std::mt19937_64 random(5);
  stranger_says([&](const Socket& to) {
    std::vector<std::byte> noise(300);
    for (auto& b : noise) b = static_cast<std::byte>(random());
    say_bytes(to, noise);
  });
  stranger_says([](const Socket&) {});
  stranger_says([](const Socket& to) {  // half a header
    const HeaderBytes header = encode({FrameKind::join, 1, 0, 500});
    say_bytes(to, std::span(header).first(17));
  });
  stranger_says([](const Socket& to) {  // a header without what it announces
    say_bytes(to, encode({FrameKind::join, 1, 0, 500}));
  });
  stranger_says([](const Socket& to) {  // more than may be announced
    say_bytes(to, encode({FrameKind::join, 1, 0, 1 << 30}));
  });
  stranger_says([&](const Socket& to) {  // the length of a proof, and no proof
    std::vector<std::byte> said(200);
    const HeaderBytes header = encode({FrameKind::join, 1, 0, said.size()});
    say_bytes(to, header);
    say_bytes(to, said);
  });
}

// rule: comm.frames-are-checked
TEST_CASE("every bit of a header counts") {
  const FrameHeader header{FrameKind::data, 3, 77, 123456789};
  const HeaderBytes bytes = encode(header);
  const FrameHeader back = decode(bytes);
  CHECK(back.kind == header.kind);
  CHECK(back.sender == 3);
  CHECK(back.place == 77);
  CHECK(back.length == 123456789);
  for (std::size_t bit = 0; bit < 8 * bytes.size(); ++bit) {
    HeaderBytes wrong = bytes;
    wrong[bit / 8] ^= static_cast<std::byte>(1u << bit % 8);
    CHECK_THROWS_AS(decode(wrong), Corrupt);
  }
  std::mt19937_64 random(3);
  for (int i = 0; i < 20'000; ++i) {
    HeaderBytes noise;
    for (auto& b : noise) b = static_cast<std::byte>(random());
    CHECK_THROWS_AS(decode(noise), Corrupt);
  }
  CHECK_THROWS_AS(decode(encode({FrameKind::join, 0, 0, kMostControlBytes + 1})), Corrupt);
}

TEST_CASE("numbers and texts come back as they were, and nothing is read past the end") {
  std::vector<std::byte> bytes;
  ByteWriter writer(bytes);
  const std::int64_t numbers[] = {0, -1, 1, 63, -64, 64, 1'000'000, INT64_MAX, INT64_MIN};
  for (const std::int64_t n : numbers) writer.signed_number(n);
  writer.number(UINT64_MAX);
  writer.text("words");
  writer.fixed<std::uint16_t>(515);
  ByteReader reader(bytes, "a test");
  for (const std::int64_t n : numbers) CHECK(reader.signed_number() == n);
  CHECK(reader.number() == UINT64_MAX);
  CHECK(reader.text() == "words");
  CHECK(reader.fixed<std::uint16_t>() == 515);
  CHECK_NOTHROW(reader.end());
  CHECK_THROWS_AS(reader.raw(1), Corrupt);
  const std::vector<std::byte> endless(11, std::byte{0xff});
  CHECK_THROWS_WITH_AS(ByteReader(endless, "it").number(), "it has a number of more than 64 bits before byte 10",
                       Corrupt);
  const std::vector<std::byte> many{std::byte{100}, std::byte{1}};
  CHECK_THROWS_WITH_AS(ByteReader(many, "it").count(), "it announces 100 entries where only 1 bytes follow", Corrupt);
  CHECK_THROWS_AS(ByteReader(many, "it").text(), Corrupt);
  CHECK_THROWS_AS(ByteReader(many, "it").end(), Corrupt);
}

TEST_CASE("a token file is its owner's alone and long enough") {
  {
    const TokenFile good("  0123456789abcdef\n", 0600);
    CHECK(load_token(good.path) == "0123456789abcdef");
  }
  {
    const TokenFile open("0123456789abcdef\n", 0644);
    CHECK_THROWS_WITH_AS(load_token(open.path),
                         str("the token file ", open.path, " is open to others than its owner; chmod 600 it").c_str(),
                         InvalidArgument);
  }
  {
    const TokenFile brief("0123456789abcde\n", 0600);
    CHECK_THROWS_AS(load_token(brief.path), InvalidArgument);
  }
  CHECK_THROWS_AS(load_token("/nowhere/token"), Io);
}
