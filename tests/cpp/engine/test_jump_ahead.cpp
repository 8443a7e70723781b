// Runs of tokens that a matcher leaves no choice of: computed in one chunk, and every bit as drawn one at a time. The
// reference is the same matcher with a second bit in each mask, of a token that the request bans: nothing is forced.
#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <memory>

#include "device.hpp"
#include "same_bits.hpp"

using namespace pagedcore;

namespace {

constexpr std::int32_t kVocab = 151;
constexpr TokenId kEnd = 150, kBanned = 149;
std::atomic<int> masks{0};  // that were asked for

/// Of most places one token may follow, a function of all tokens so far; of others about every third. Places depend on
/// the last three tokens: samples that go apart meet again.
struct Form {
  std::vector<TokenId> last;
  std::uint32_t length = 0;
  std::uint32_t most = 40;   // tokens; then comes the end
  bool hidden = false;       // the second bit
  std::uint32_t forces = 4;  // of five places

  std::uint64_t hash() const {
    std::uint64_t value = 17 + length / 2;
    for (std::size_t i = last.size() - std::min<std::size_t>(last.size(), 3); i < last.size(); ++i)
      value = (value ^ static_cast<std::uint64_t>(last[i] + 1)) * 0x9e3779b97f4a7c15u;
    return value >> 20;
  }
  bool allows(TokenId token) const {
    if (token == kEnd) return length >= most;
    if (token == kBanned) return hidden;
    if (length >= most) return false;
    if (length > 0 && hash() % 5 < forces) return token == static_cast<TokenId>(hash() / 5 % 149);
    return (hash() + static_cast<std::uint64_t>(token) * 7) % 3 == 0;
  }
};

ConstraintTable table() {
  ConstraintTable t;
  t.compute_mask = [](void* matcher, std::uint32_t* mask, std::size_t) -> std::int32_t {
    ++masks;
    const Form& form = *static_cast<const Form*>(matcher);
    for (TokenId token = 0; token < kVocab; ++token)
      if (form.allows(token)) mask[token / 32] |= 1u << token % 32;
    return 0;
  };
  t.consume_token = [](void* matcher, std::uint32_t token) -> std::int32_t {
    Form& form = *static_cast<Form*>(matcher);
    if (!form.allows(static_cast<TokenId>(token))) return -1;
    form.last.push_back(static_cast<TokenId>(token));
    ++form.length;
    return 0;
  };
  t.clone = [](const void* matcher) -> void* { return new Form(*static_cast<const Form*>(matcher)); };
  t.free = [](void* matcher) { delete static_cast<Form*>(matcher); };
  return t;
}

EngineConfig small(int threads = 1) {
  EngineConfig config = device::config(device::under_test().dtypes.front(), threads);
  config.kv.block_size = 4;
  config.kv.num_blocks = 500;
  config.scheduler.max_batched_tokens = 64;
  return config;
}

EngineRequest request(std::uint32_t seed, const Form& form) {
  EngineRequest r = same_bits::request(3 + seed, seed, 48, 2);
  r.sampling.stop_token_ids = {kEnd};
  r.sampling.banned_tokens = {kBanned};
  r.sampling.logprob_token_ids = {5, 77};
  r.constraint = std::make_shared<Constraint>(table(), new Form(form));
  return r;
}

/// One of each kind that could notice.
std::vector<EngineRequest> kinds(bool hidden) {
  Form form;
  form.hidden = hidden;
  std::vector<EngineRequest> all;
  for (std::uint32_t i = 0; i < 8; ++i) all.push_back(request(i, form));
  all[0].sampling.temperature = 0.0f;
  all[1].sampling.n = 3;
  all[2].sampling.repetition_penalty = 1.3f;
  all[2].sampling.frequency_penalty = 0.5f;
  all[3].sampling.min_tokens = 30;
  all[4].sampling.max_tokens = 7;
  all[5].sampling.max_tokens = 23;
  all[5].sampling.n = 2;
  all[6].sampling.logprobs.reset();
  all[6].sampling.logprob_token_ids.clear();
  all[6].stream = true;
  all[7].stream = true;
  all[7].sampling.prompt_logprobs = 1;
  return all;
}

struct Seen {
  same_bits::Bits bits;
  std::map<std::string, double> stats;
};

Seen serve(const EngineConfig& config, const std::vector<EngineRequest>& requests, std::uint32_t period = 0,
           PreemptionMode mode = PreemptionMode::recompute, std::uint32_t strangers = 0) {
  const tiny::TinyModel model = device::model();
  Engine engine(model.description, model.weights, config);
  engine.force_preemption(period, mode);
  std::vector<RequestId> ids;
  for (std::uint32_t i = 0; i < std::max<std::size_t>(requests.size(), strangers); ++i) {
    if (i < strangers) engine.submit(same_bits::request(5 + i, 700 + i, 9, 0));
    if (i < requests.size()) ids.push_back(engine.submit(requests[i]));
  }
  const fake::Collection all = fake::drain(engine);
  Seen seen;
  for (std::size_t i = 0; i < ids.size(); ++i) {
    for (std::uint32_t sample = 0; sample < requests[i].sampling.n; ++sample) {
      const fake::Collected& got = all.at(ids[i], sample);
      CHECK(got.error == "");
      CHECK(got.logprobs.size() == (requests[i].sampling.reports_logprobs() ? got.tokens.size() : 0));
      seen.bits.push_back(same_bits::bits(got));
      seen.bits.back().push_back(static_cast<std::uint32_t>(got.finish));
    }
  }
  seen.stats = engine.stats();
  CHECK(seen.stats.at("blocks_used") == 0);
  return seen;
}

}  // namespace

// rule: engine.jump-shows-nothing
// rule: scheduler.jump-is-a-chunk
TEST_CASE(
    "tokens, log-probabilities and ends are those of tokens that are drawn one at a time, and come in fewer steps") {
  const Seen drawn = serve(small(), kinds(true));
  CHECK(drawn.stats.at("tokens_jumped") == 0);
  const Seen jumped = serve(small(), kinds(false));
  CHECK(jumped.bits == drawn.bits);
  CHECK(jumped.stats.at("tokens_jumped") > 100);
  CHECK(jumped.stats.at("tokens_sampled") == drawn.stats.at("tokens_sampled"));
  CHECK(jumped.stats.at("steps") < 0.5 * drawn.stats.at("steps"));
  EngineConfig off = small();
  off.scheduler.jump_ahead = false;
  const Seen one_by_one = serve(off, kinds(false));
  CHECK(one_by_one.bits == drawn.bits);
  CHECK(one_by_one.stats.at("tokens_jumped") == 0);
  // Not the very same number: the engine takes requests in while they are still being submitted.
  CHECK(std::abs(one_by_one.stats.at("steps") - drawn.stats.at("steps")) <= kinds(true).size());
}

// rule: engine.same-request-same-bits
TEST_CASE(
    "jumps have the same bits in a crowd, in chunks of five rows, preempted either way, cached and on two threads") {
  const same_bits::Bits drawn = serve(small(), kinds(true)).bits;
  EngineConfig chunks = small();
  chunks.scheduler.max_batched_tokens = 5;
  EngineConfig swapping = small(2);
  swapping.swap.swap_space = 1 << 22;
  EngineConfig uncached = small();
  uncached.kv.enable_prefix_caching = false;
  CHECK(serve(chunks, kinds(false), 0, PreemptionMode::recompute, 6).bits == drawn);
  for (const std::uint32_t period : {1u, 2u, 3u}) {
    CAPTURE(period);
    const Seen recomputed = serve(small(), kinds(false), period, PreemptionMode::recompute, 6);
    CHECK(recomputed.bits == drawn);
    CHECK(recomputed.stats.at("preemptions_recompute") > 0);
    CHECK(serve(chunks, kinds(false), period).bits == drawn);
    CHECK(serve(uncached, kinds(false), period).bits == drawn);
    CHECK(serve(swapping, kinds(false), period, PreemptionMode::swap).bits == drawn);
  }
}

TEST_CASE("what others left in the cache does not take the log-probabilities of a run") {
  std::vector<EngineRequest> twice = kinds(false);
  for (const EngineRequest& r : kinds(false)) twice.push_back(r);  // the second ones come upon what the first ones left
  const same_bits::Bits one = serve(small(), kinds(true)).bits;
  same_bits::Bits both = one;
  both.insert(both.end(), one.begin(), one.end());
  CHECK(serve(small(), twice, 2).bits == both);
  CHECK(serve(small(), twice, 1).bits == both);
}

// rule: engine.run-is-bounded
TEST_CASE("a form that leaves no choice at all takes a bounded part of each step, and ends where it ends") {
  Form form;
  form.forces = 5;
  form.most = 200;
  EngineRequest r = request(1, form);
  r.sampling.max_tokens = 240;
  masks = 0;
  const Seen seen = serve(small(), {r});
  CHECK(seen.bits.at(0).back() == static_cast<std::uint32_t>(FinishReason::stop));
  CHECK(masks <= 202);  // one for each token
  // 64 at a time: behind three draws as many, behind a fourth the rest, and the end's. Rows of a run and its draw are
  // 65, and a step has room for 64.
  CHECK(seen.stats.at("tokens_sampled") == seen.stats.at("tokens_jumped") + 5);
  CHECK(seen.stats.at("steps") == 8);
}
