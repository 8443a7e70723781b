// Prefixes beyond an engine: kept in a directory and handed from engine to engine, with the same bits, whatever becomes
// of the directory.
#include <doctest/doctest.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <random>
#include <thread>

#include "device.hpp"
#include "pagedcore/error.hpp"
#include "pagedcore/trace.hpp"
#include "same_bits.hpp"
#include "sampling_requests.hpp"

using tiny::TinyModel;
using namespace pagedcore;

namespace {

class Directory {
 public:
  Directory() {
    static std::mt19937_64 random(std::random_device{}());
    path_ = std::filesystem::temp_directory_path() / ("pagedcore-kv-" + std::to_string(random()));
  }
  ~Directory() { std::filesystem::remove_all(path_); }
  Directory(const Directory&) = delete;
  Directory& operator=(const Directory&) = delete;
  std::string path() const { return path_.string(); }

 private:
  std::filesystem::path path_;
};

/// Requests whose prompts are long enough for blocks, with samples and salts.
std::vector<EngineRequest> observed() {
  std::vector<EngineRequest> list;
  for (std::uint32_t i = 0; i < 5; ++i)
    list.push_back(same_bits::request(std::vector<std::size_t>{33, 48, 65, 90, 64}[i], i + 1, 6, 3));
  sampling_requests::vary_sampling(list);
  list[1].options.salt = 5;
  list[2].sampling.n = 2;
  return list;
}

EngineConfig config_with(const Directory& directory, int threads = 1) {
  EngineConfig config = device::config(device::under_test().dtypes.front(), threads);
  config.kv.num_blocks = 400;
  config.store.kv_store = directory.path();
  config.store.kv_store_size = 64 << 20;
  return config;
}

EngineConfig without_store(EngineConfig config) {
  config.store = {};
  return config;
}

double stat(const Engine& engine, const std::string& name) { return engine.stats().at(name); }

/// A model whose second layer sees 24 tokens.
TinyModel windowed() {
  TinyModel model = device::model();
  model.description.attention.windows = {0, 24};
  return model;
}

}  // namespace

// rule: engine.same-request-same-bits
// rule: engine.store-is-a-cache
TEST_CASE("a restart finds what was computed before, and the bits are the same") {
  const bool every = device::under_test().every_disturbance;
  for (const bool has_windows : every ? std::vector<bool>{false, true} : std::vector<bool>{false}) {
    CAPTURE(has_windows);
    const TinyModel model = has_windows ? windowed() : device::model();
    const Directory directory;
    const EngineConfig config = config_with(directory);
    const auto list = observed();
    const same_bits::Bits alone = same_bits::run_alone(model, without_store(config), list);
    {
      Engine engine(model.description, model.weights, config);
      CHECK(same_bits::run(engine, list) == alone);
      CHECK(stat(engine, "kv_store_hit_tokens") == 0);
      engine.close();
    }
    double hits = 0;
    {
      Engine engine(model.description, model.weights, config);
      CHECK(same_bits::run(engine, list) == alone);
      hits = stat(engine, "kv_store_hit_tokens");
      CHECK(stat(engine, "kv_store_errors") == 0);
      CHECK(stat(engine, "kv_store_bytes_read") > 0);
      CHECK(stat(engine, "blocks_free") + stat(engine, "blocks_cached") == stat(engine, "blocks_total"));
    }
    CHECK(hits == 32 + 48 + 64 + 80);             // a scored prompt uses none
    for (const std::uint32_t rows : {7u, 64u}) {  // in chunks, among strangers, on other threads, preempted
      EngineConfig other = config_with(directory, 2);
      other.scheduler.max_batched_tokens = rows;
      other.kv.num_blocks = has_windows ? 80 : 60;
      Engine engine(model.description, model.weights, other);
      engine.force_preemption(3);
      CHECK(same_bits::run(engine, list, device::under_test().strangers / 2) == alone);
      CHECK(stat(engine, "kv_store_hit_tokens") > 0);
    }
    EngineConfig wider = config;
    wider.kv.block_size = 8;  // other blocks: nothing of this is theirs
    Engine engine(model.description, model.weights, wider);
    CHECK(same_bits::run(engine, list) == alone);
    CHECK(stat(engine, "kv_store_hit_tokens") == 0);
  }
}

TEST_CASE("a prompt that goes on from a stored one computes only the rest; another salt finds nothing") {
  const TinyModel model = device::model();
  const Directory directory;
  EngineRequest first = same_bits::request(80, 3, 20, 0);
  std::vector<TokenId> conversation = first.prompt;
  {
    Engine engine(model.description, model.weights, config_with(directory));
    engine.submit(first);
    const fake::Collection all = fake::drain(engine);
    const auto& tokens = all.at(RequestId{1}).tokens;
    conversation.insert(conversation.end(), tokens.begin(), tokens.end());
  }
  conversation.push_back(5);
  Engine engine(model.description, model.weights, config_with(directory));
  EngineRequest next = first;
  next.prompt = conversation;
  next.options.salt = 9;
  engine.submit(next);
  fake::drain(engine);
  CHECK(stat(engine, "kv_store_hit_tokens") == 0);
  next.options.salt = 0;
  engine.submit(next);
  fake::drain(engine);
  CHECK(stat(engine, "kv_store_hit_tokens") == 96);  // of 99 computed ones
  CHECK(stat(engine, "prefix_hit_tokens") == 96);
}

TEST_CASE("registered prefixes are kept and found too") {
  const TinyModel model = device::model();
  const Directory directory;
  const std::vector<TokenId> tokens = same_bits::request(70, 4, 1, 0).prompt;
  for (const double hits : {0.0, 64.0}) {
    Engine engine(model.description, model.weights, config_with(directory));
    engine.register_prefix("p", tokens, 3);
    fake::drain(engine);
    CHECK(stat(engine, "kv_store_hit_tokens") == hits);
    CHECK(stat(engine, "blocks_pinned") == 5);
  }
}

TEST_CASE("engines of other weights, and of other options, share a directory and no block") {
  const Directory directory;
  const auto list = observed();
  TinyModel model = device::model();
  {
    Engine engine(model.description, model.weights, config_with(directory));
    same_bits::run(engine, list);
  }
  model.values("layers.1.attn.k.weight")[0] += 1.0f;
  Engine engine(model.description, model.weights, config_with(directory));
  const auto alone = same_bits::run_alone(model, without_store(config_with(directory)), list);
  CHECK(same_bits::run(engine, list) == alone);
  CHECK(stat(engine, "kv_store_hit_tokens") == 0);
}

TEST_CASE("two engines use one directory at once") {
  const TinyModel model = device::model();
  const Directory directory;
  const auto list = observed();
  Engine one(model.description, model.weights, config_with(directory));
  Engine two(model.description, model.weights, config_with(directory));
  const auto alone = same_bits::run_alone(model, without_store(config_with(directory)), list);
  CHECK(same_bits::run(one, list) == alone);
  // What one has written the other finds within a second of looking.
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (stat(two, "kv_store_hit_tokens") == 0 && std::chrono::steady_clock::now() < end) {
    two.clear_prefix_cache();
    CHECK(same_bits::run(two, list) == alone);
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  CHECK(stat(two, "kv_store_hit_tokens") > 0);
}

TEST_CASE("damaged blocks and a directory that goes are computed, and the engine goes on") {
  const TinyModel model = device::model();
  const Directory directory;
  const auto list = observed();
  const auto alone = same_bits::run_alone(model, without_store(config_with(directory)), list);
  {
    Engine engine(model.description, model.weights, config_with(directory));
    same_bits::run(engine, list);
  }
  for (const auto& entry : std::filesystem::directory_iterator(directory.path())) {
    std::fstream file(entry.path(), std::ios::in | std::ios::out | std::ios::binary);
    const auto size = static_cast<std::streamoff>(std::filesystem::file_size(entry.path()));
    for (std::streamoff at = size / 2; at < size; at += 512) {  // blocks, not the headers before them
      file.seekp(at);
      file.put('!');
    }
  }
  Engine engine(model.description, model.weights, config_with(directory));
  CHECK(same_bits::run(engine, list) == alone);
  CHECK(stat(engine, "kv_store_errors") > 0);
  engine.clear_prefix_cache();
  std::filesystem::remove_all(directory.path());
  CHECK(same_bits::run(engine, list) == alone);
  engine.clear_prefix_cache();
  CHECK(same_bits::run(engine, list) == alone);
}

// rule: scheduler.trace-replays
TEST_CASE("a trace of an engine with a store replays") {
  const TinyModel model = device::model();
  const Directory directory;
  const auto list = observed();
  for (int run = 0; run < 2; ++run) {
    const std::string trace = directory.path() + ".trace" + std::to_string(run);
    EngineConfig config = config_with(directory);
    config.trace_file = trace;
    {
      Engine engine(model.description, model.weights, config);
      same_bits::run(engine, list);
      if (run == 1) CHECK(stat(engine, "kv_store_hit_tokens") > 0);
    }
    const TraceReplay replay = replay_trace(trace);
    CHECK(replay.difference == "");
    CHECK(replay.is_complete);
    std::filesystem::remove(trace);
  }
}

TEST_CASE("an abort while its prefix is read, and a close, end what they should") {
  const TinyModel model = device::model();
  const Directory directory;
  const auto list = observed();
  {
    Engine engine(model.description, model.weights, config_with(directory));
    same_bits::run(engine, list);
  }
  for (int run = 0; run < 20; ++run) {
    Engine engine(model.description, model.weights, config_with(directory));
    const RequestId id = engine.submit(list[3]);
    const RequestId other = engine.submit(list[0]);
    if (run % 3 > 0) std::this_thread::sleep_for(std::chrono::microseconds(50 * run));
    engine.abort(id);
    if (run % 2 == 0) {
      const fake::Collection all = fake::drain(engine);
      CHECK(all.at(other).error == "");
    }
  }
}

TEST_CASE("options that cannot work together are refused") {
  const TinyModel model = device::model();
  const Directory directory;
  const auto refusal = [&](const std::function<void(EngineConfig&)>& change) {
    EngineConfig config = config_with(directory);
    change(config);
    try {
      Engine engine(model.description, model.weights, config);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  CHECK(refusal([](EngineConfig& c) { c.kv.enable_prefix_caching = false; }).find("kv_store keeps what") == 0);
  CHECK(refusal([](EngineConfig& c) { c.store.kv_store.clear(); }).find("kv_store_size") == 0);
  CHECK(refusal([](EngineConfig& c) { c.store.kv_store_size = 100; }).find("holds no block") != std::string::npos);
  CHECK(refusal([](EngineConfig& c) { c.store.kv_store += "/a/b"; }).find("cannot be made") != std::string::npos);
  EngineConfig config = config_with(directory);
  const MemoryPlan plan = plan_memory(model.description, config);
  CHECK(plan.store > 2 * (std::size_t{15} << 20));
  CHECK(plan.total() > plan_memory(model.description, without_store(config)).total() + plan.store - 1);
}

// rule: engine.transfer-is-whole
TEST_CASE("a prefix goes from engine to engine: computed on one, used on the other, the same bits") {
  for (const bool has_windows : {false, true}) {
    if (has_windows && !device::under_test().every_disturbance) continue;
    CAPTURE(has_windows);
    const TinyModel model = has_windows ? windowed() : device::model();
    EngineConfig config = device::config();
    config.kv.num_blocks = 300;
    const auto list = observed();
    const auto alone = same_bits::run_alone(model, config, list);
    config.store.kv_transfer = true;
    Engine prefill(model.description, model.weights, config), decode(model.description, model.weights, config);
    for (const EngineRequest& request : list) {
      EngineRequest compute = request;
      compute.sampling = {};
      compute.sampling.max_tokens = 0;
      prefill.submit(compute);
      fake::drain(prefill);
      const std::vector<std::byte> bytes = prefill.export_prefix(request.prompt, request.options.salt);
      const auto whole = static_cast<std::uint32_t>(request.prompt.size() / 16 * 16);
      CHECK(decode.import_prefix(bytes) == whole);
      CHECK(decode.import_prefix(bytes) == whole);  // it is there
    }
    CHECK(same_bits::run(decode, list) == alone);
    CHECK(stat(decode, "prefix_hit_tokens") == 32 + 47 + 64 + 80);

    const std::vector<std::byte> good = prefill.export_prefix(list[0].prompt);
    const auto is_refused = [&](std::span<const std::byte> bytes) {
      try {
        decode.import_prefix(bytes);
      } catch (const Corrupt&) {
        return true;
      }
      return false;
    };
    for (std::size_t at = 0; at < good.size(); at += at < 700 ? 1 : 97) {
      std::vector<std::byte> bad = good;
      bad[at] ^= std::byte{4};
      CHECK(is_refused(bad));
    }
    for (std::size_t size = 0; size < good.size(); size += 101) CHECK(is_refused(std::span(good).first(size)));
    CHECK_THROWS_AS(prefill.export_prefix(list[0].prompt, 77), InvalidArgument);
    CHECK_THROWS_AS(prefill.export_prefix(std::vector<TokenId>{1, 2}), InvalidArgument);
    EngineConfig other = config;
    other.kv.block_size = 8;
    Engine different(model.description, model.weights, other);
    CHECK_THROWS_AS(different.import_prefix(good), InvalidArgument);
    Engine closed(model.description, model.weights, without_store(config));
    CHECK_THROWS_AS(closed.export_prefix(list[0].prompt), Unsupported);
    CHECK_THROWS_AS(closed.import_prefix(good), Unsupported);
    decode.close();
    CHECK_THROWS_AS(decode.import_prefix(good), Aborted);
  }
}
