// Ranks that come to an engine by shared memory and TCP: the bits of one, who is refused, and what becomes of a loss.
// Here they run on threads of the test, which is all the same to them; tests/python starts processes, and kills them.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <memory>
#include <thread>

#include "base/text.hpp"
#include "comm/sockets.hpp"
#include "engine/kv_identity.hpp"
#include "engine/memory_plan.hpp"
#include "engine/process_ranks.hpp"
#include "engine/rank_talk.hpp"
#include "pagedcore/error.hpp"
#include "pagedcore/rank_process.hpp"
#include "same_bits.hpp"
#include "sampling_requests.hpp"

using tiny::TinyModel;
using namespace pagedcore;

namespace {

constexpr double kDeadline = 60.0;  // of a busy machine

/// A file with a secret, that goes with the test.
struct Token {
  explicit Token(const char* text = "a secret of the tests") {
    static std::atomic<int> made{0};
    path = str("/tmp/pagedcore-test-token-", getpid(), "-", made++);
    const int file = open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    REQUIRE(file >= 0);
    REQUIRE(write(file, text, strlen(text)) == static_cast<ssize_t>(strlen(text)));
    close(file);
  }
  ~Token() { unlink(path.c_str()); }
  Token(const Token&) = delete;
  Token& operator=(const Token&) = delete;
  std::string path;
};

std::string address_of(bool tcp) {
  static std::atomic<int> made{0};
  if (!tcp) return str("unix:/tmp/pagedcore-test-ranks-", getpid(), "-", made++);
  const comm::Address any("127.0.0.1:0");
  return comm::bound_address(comm::listen_at(any), any).text();
}

EngineConfig config_for(DType dtype, std::int32_t ranks, const std::string& address, const Token& token) {
  EngineConfig config;
  config.cpu.dtype = dtype;
  config.cpu.threads = 1;
  config.tensor_parallel = ranks;
  config.kv.num_blocks = 400;
  config.ranks = {address, token.path, kDeadline, kDeadline};
  return config;
}

/// What the rank's process knows: where to go, and how many threads it has.
EngineConfig own_config(const EngineConfig& of_engine) {
  EngineConfig config;
  config.ranks = of_engine.ranks;
  config.cpu.threads = 1;
  return config;
}

/// A rank of the engine that `config` describes, on a thread.
class Rank {
 public:
  Rank(const TinyModel& model, const EngineConfig& config, const RankPlace& place = {})
      : thread_([this, &model, config, place] {
          try {
            serve_rank(model.description, model.weights, own_config(config), place);
          } catch (const std::exception& e) {
            error_ = e.what();
          }
        }) {}
  ~Rank() { end(); }
  Rank(const Rank&) = delete;
  Rank& operator=(const Rank&) = delete;
  /// What it threw; empty when rank 0 had no more for it.
  std::string end() {
    if (thread_.joinable()) thread_.join();
    return error_;
  }

 private:
  std::string error_;
  std::thread thread_;
};

std::vector<std::unique_ptr<Rank>> ranks_of(const TinyModel& model, const EngineConfig& config) {
  std::vector<std::unique_ptr<Rank>> all;
  for (std::int32_t r = 1; r < config.tensor_parallel; ++r) all.push_back(std::make_unique<Rank>(model, config));
  return all;
}

std::vector<EngineRequest> observed() {
  std::vector<EngineRequest> list;
  for (const std::size_t prompt : {15u, 40u, 77u})
    list.push_back(same_bits::request(prompt, static_cast<std::uint32_t>(prompt), 10, 3));
  list[1].sampling.n = 2;
  list[1].sampling.temperature = 0.7f;
  return list;
}

same_bits::Bits alone(const TinyModel& model, DType dtype) {
  EngineConfig config;
  config.cpu.dtype = dtype;
  config.cpu.threads = 1;
  config.kv.num_blocks = 400;
  return same_bits::run_alone(model, config, observed());
}

}  // namespace

// rule: engine.processes-same-bits
TEST_CASE("ranks that come by shared memory and by TCP give the bits of one, in every disturbance") {
  const Token token;
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const TinyModel model(151, 2, 16);
    const same_bits::Bits want = alone(model, dtype);
    for (const bool tcp : {false, true}) {
      CAPTURE(tcp);
      CAPTURE(info(dtype).name);
      const auto same = [&](EngineConfig config, const same_bits::Disturbance& d) {
        config.ranks.rank_address = address_of(tcp);
        const auto ranks = ranks_of(model, config);
        same_bits::check_same(model, config, observed(), want, d);
        for (const auto& rank : ranks) CHECK(rank->end() == "");
      };
      EngineConfig config = config_for(dtype, tcp ? 2 : 3, "", token);
      config.scheduler.max_batched_tokens = 32;
      same(config, {"preempted among strangers", 6, 3});
      config.swap.swap_space = 4 << 20;
      same(config, {"swapped", 4, 2, PreemptionMode::swap});
    }
  }
}

TEST_CASE("all that sampling offers, beam search among it, is the same with ranks that are processes") {
  const Token token;
  const TinyModel model(sampling_requests::kVocab);
  EngineConfig plain;
  plain.cpu.threads = 1;
  plain.kv.num_blocks = 400;
  Engine one(model.description, model.weights, plain);
  const auto want = sampling_requests::run(one, 12);
  const EngineConfig config = config_for(DType::bf16, 2, address_of(false), token);
  const auto ranks = ranks_of(model, config);
  Engine two(model.description, model.weights, config);
  CHECK(two.describe().find("2 processes") != std::string::npos);
  CHECK(two.rank_losses().size() == 2);
  sampling_requests::check_same(sampling_requests::run(two, 12), want);
}

namespace {

/// What a rank is told that comes to an engine of two before the right one does, which then serves.
std::string refusal(const TinyModel& model, const EngineConfig& config, const TinyModel& its, EngineConfig own,
                    const RankPlace& place = {}) {
  std::string said;
  {
    std::unique_ptr<Rank> right;
    std::thread wrong([&] {
      try {
        serve_rank(its.description, its.weights, own, place);
        said = "(it was let in)";
      } catch (const std::exception& e) {
        said = e.what();
      }
      right = std::make_unique<Rank>(model, config);
    });
    Engine engine(model.description, model.weights, config);
    wrong.join();
    same_bits::run(engine, {same_bits::request(9, 1, 4, 1)});
    engine.close();
    CHECK(right->end() == "");
  }
  return said;
}

bool has(const std::string& text, std::string_view part) { return text.find(part) != std::string::npos; }

}  // namespace

// rule: engine.strangers-are-no-ranks
TEST_CASE("a rank with another token, model, option, deadline or number is refused in its own words, and others come") {
  const Token token, other("a secret of somebody else");
  const TinyModel model(151, 2, 16);
  TinyModel another(151, 2, 16);
  another.values("layers.1.mlp.down.weight")[0] += 1.0f;
  const auto config = [&] { return config_for(DType::f32, 2, address_of(true), token); };
  EngineConfig of = config(), own = own_config(of);
  own.ranks.rank_token_file = other.path;
  CHECK(has(refusal(model, of, model, own), "token"));
  of = config();
  const std::string model_differs = refusal(model, of, another, own_config(of));
  CHECK_MESSAGE((has(model_differs, "its model is '") && has(model_differs, "both must be the same")), model_differs);
  of = config();
  const std::string option = refusal(model, of, model, own_config(of), {1, {{"dtype", "bfloat16"}}});
  CHECK_MESSAGE(has(option, "its dtype is 'bfloat16' and rank 0's is 'float32'"), option);
  of = config(), own = own_config(of);
  own.ranks.rank_deadline = 33.0;
  CHECK(has(refusal(model, of, model, own), "its deadline is '33000 ms'"));
  of = config();
  CHECK(has(refusal(model, of, model, own_config(of), {2, {}}), "rank 2 has no place in a group of 2 ranks"));
}

TEST_CASE("garbage and half a message hold up no rank") {
  const Token token;
  const TinyModel model(151, 2, 16);
  const EngineConfig config = config_for(DType::f32, 2, address_of(true), token);
  std::unique_ptr<Rank> right;
  std::vector<comm::Socket> strangers;  // stay until the end
  std::thread others([&] {
    const auto end = comm::Clock::now() + std::chrono::seconds(60);
    for (const std::size_t size : {0u, 7u, 4000u}) {
      strangers.push_back(comm::connect_to(comm::Address(config.ranks.rank_address), end));
      const std::string garbage(size, 'x');
      static_cast<void>(!send(strangers.back().fd(), garbage.data(), garbage.size(), MSG_NOSIGNAL));
    }
    right = std::make_unique<Rank>(model, config);
  });
  {
    Engine engine(model.description, model.weights, config);
    others.join();
    same_bits::run(engine, {same_bits::request(9, 1, 4, 1)});
  }
  CHECK(right->end() == "");
}

TEST_CASE("an engine whose ranks do not come says which, and who was turned away") {
  const Token token;
  const TinyModel model(151, 2, 16);
  EngineConfig config = config_for(DType::f32, 3, address_of(false), token);
  config.ranks.rank_patience = 0.3;
  try {
    Engine(model.description, model.weights, config);
    FAIL("it was made");
  } catch (const Aborted& e) {
    CHECK(has(e.what(), "of 3 ranks these did not come within 300 ms: 1, 2"));
  }
}

TEST_CASE("options of ranks that cannot work together are refused") {
  const Token token;
  EngineConfig config = config_for(DType::f32, 1, "127.0.0.1:7777", token);
  CHECK_THROWS_AS(validate(config), InvalidArgument);
  config.tensor_parallel = 2;
  validate(config);
  config.ranks.rank_address = "127.0.0.1:0";
  CHECK_THROWS_AS(validate(config), InvalidArgument);
  config.ranks.rank_address = "nowhere";
  CHECK_THROWS_AS(validate(config), InvalidArgument);
  config.ranks = {"127.0.0.1:7777", "", kDeadline, kDeadline};
  CHECK_THROWS_AS(validate(config), InvalidArgument);
  config.ranks.rank_address = "";
  CHECK_THROWS_AS(validate(config), InvalidArgument);  // a deadline for nobody
  const TinyModel model(151, 2, 16);
  CHECK_THROWS_AS(serve_rank(model.description, model.weights, EngineConfig{}), InvalidArgument);
}

namespace {

/// A rank that goes away: it says that it is ready, takes part in nothing and leaves at the `steps`-th message.
void come_and_go(const TinyModel& model, const EngineConfig& config, int steps) {
  EngineConfig settled = config;
  comm::Member member = ranks::member_of(settled, ranks::fingerprint(model.description, model.weights));
  member.rank = 1;
  const auto group = ranks::join(member);
  ranks::Ear ear;
  const auto setup = ranks::setup_of(ear.hear(*group).second);
  CHECK(setup.cache != 0);
  const auto backend = make_backend(ranks::with_options(own_config(config), setup.options));
  const ranks::Readiness ready{ranks::Readiness::State::ready, 0, 0, 0, arithmetic_of(*backend)};
  std::vector<ranks::Readiness> said;
  ranks::agree(
      *group, [&] { return ready; }, said);
  for (; steps > 0; --steps) ear.hear(*group);
}

}  // namespace

// rule: engine.lost-rank-costs-time
TEST_CASE("a rank that is lost comes back, and all is computed again with the same bits") {
  const Token token;
  const TinyModel model(151, 2, 16);
  const same_bits::Bits want = alone(model, DType::f32);
  for (const int steps : {0, 1}) {  // while there is nothing to do, and in a step
    CAPTURE(steps);
    EngineConfig config = config_for(DType::f32, 2, address_of(false), token);
    std::unique_ptr<Rank> right;
    std::thread others([&] {
      come_and_go(model, config, steps);
      right = std::make_unique<Rank>(model, config, RankPlace{1, {}});
    });
    {
      Engine engine(model.description, model.weights, config);
      CHECK(same_bits::run(engine, observed(), 4) == want);
      others.join();
      CHECK(same_bits::run(engine, observed()) == want);
      if (steps > 0) CHECK(engine.rank_losses()[1].process == static_cast<std::uint64_t>(getpid()));
    }
    CHECK(right->end() == "");
  }
}

TEST_CASE("an engine that waits for a lost rank can be closed") {
  const Token token;
  const TinyModel model(151, 2, 16);
  const EngineConfig config = config_for(DType::f32, 2, address_of(false), token);
  std::thread other([&] { come_and_go(model, config, 1); });
  Engine engine(model.description, model.weights, config);
  const RequestId id = engine.submit(same_bits::request(9, 1, 4, 1));
  other.join();
  engine.close();
  CHECK(raw(id) > 0);
  CHECK_THROWS_AS(engine.stats(), Aborted);
}
