// What C reaches of an engine beside one request at a time: batches, queues, callbacks, snapshots.
#include <doctest/doctest.h>
#include <poll.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "harness.hpp"
#include "pagedcore/engine.hpp"

using namespace capi_test;

namespace {

class OpenEngine {
 public:
  explicit OpenEngine(Settings settings = {}) {
    SmallEngine options;
    for (const auto& [name, text] : settings) options.set(name, text);
    REQUIRE(pc_engine_open(container_.path().c_str(), options, &handle_) == PC_OK);
  }
  ~OpenEngine() { pc_engine_free(handle_); }
  OpenEngine(const OpenEngine&) = delete;
  OpenEngine& operator=(const OpenEngine&) = delete;
  operator pc_engine*() const { return handle_; }

 private:
  Container container_;
  pc_engine* handle_ = nullptr;
};

const int32_t kPrompt[] = {5, 6, 7, 8, 9};

/// The tokens of each request that ends in a queue, `count` of them.
std::map<uint64_t, std::vector<int32_t>> collect(pc_engine* engine, uint64_t queue, std::size_t count) {
  std::map<uint64_t, std::vector<int32_t>> tokens;
  for (std::size_t ended = 0; ended < count;) {
    pc_outputs* outputs = nullptr;
    REQUIRE(pc_engine_wait_queue(engine, queue, 60.0, &outputs) == PC_OK);
    REQUIRE(pc_outputs_count(outputs) > 0);
    for (size_t i = 0; i < pc_outputs_count(outputs); ++i) {
      const pc_output& o = *pc_outputs_get(outputs, i);
      auto& all = tokens[o.request];
      all.insert(all.end(), o.tokens, o.tokens + o.num_tokens);
      ended += o.last != 0;
    }
    pc_outputs_free(outputs);
  }
  return tokens;
}

double now(pc_engine* engine) {
  double seconds = 0.0;
  REQUIRE(pc_engine_now(engine, &seconds) == PC_OK);
  return seconds;
}

/// Until every request has delivered its last output, or went with its queue.
void wait_until_idle(pc_engine* engine) {
  const double begin = now(engine);
  for (int32_t busy = 1; busy != 0;) {
    REQUIRE(pc_engine_busy(engine, &busy) == PC_OK);
    REQUIRE(now(engine) < begin + 60.0);
  }
}

double number(const pc_record* record, const char* name) {
  double value = -1.0;
  CHECK_MESSAGE(pc_record_number(record, name, &value) == PC_OK, pc_last_error());
  return value;
}

}  // namespace

TEST_CASE("several requests arrive together or not at all, and give what each gives alone") {
  const OpenEngine engine;
  const Options greedy(PC_OPTIONS_SAMPLING, {{"temperature", "0"}, {"max_tokens", "6"}});
  const Options drawn(PC_OPTIONS_SAMPLING, {{"seed", "3"}, {"max_tokens", "4"}});
  pc_request requests[] = {{kPrompt, 3, greedy}, {kPrompt, 5, drawn}, {kPrompt, 2, nullptr}};
  uint64_t ids[3] = {};
  REQUIRE_MESSAGE(pc_engine_submit_all(engine, 0, requests, 3, ids) == PC_OK, pc_last_error());
  CHECK(ids[0] < ids[1]);
  CHECK(ids[1] < ids[2]);
  const auto together = collect(engine, 0, 3);
  for (std::size_t i = 0; i < 2; ++i) {  // the third draws by a seed of its own
    uint64_t alone = 0;
    REQUIRE(pc_engine_submit(engine, requests[i].prompt, requests[i].prompt_length, requests[i].options, &alone) ==
            PC_OK);
    CHECK(collect(engine, 0, 1).at(alone) == together.at(ids[i]));
  }
  CHECK(together.at(ids[2]).size() == 16);

  // rule: capi.nothing-written-on-failure
  uint64_t unchanged[3] = {7, 7, 7};
  const int32_t beyond[] = {151};
  requests[1] = {beyond, 1, greedy};
  CHECK(pc_engine_submit_all(engine, 0, requests, 3, unchanged) == PC_INVALID_ARGUMENT);
  CHECK(says("request 1: "));
  CHECK(says("151"));
  requests[1] = {kPrompt, SIZE_MAX, greedy};
  CHECK(pc_engine_submit_all(engine, 0, requests, 3, unchanged) == PC_INVALID_ARGUMENT);
  CHECK(says("request 1: argument 'prompt' has"));
  requests[1] = {nullptr, 1, greedy};
  CHECK(pc_engine_submit_all(engine, 0, requests, 3, unchanged) == PC_INVALID_ARGUMENT);
  CHECK(says("request 1: argument 'prompt' is null"));
  CHECK(pc_engine_submit_all(engine, 0, requests, SIZE_MAX, unchanged) == PC_INVALID_ARGUMENT);
  CHECK(pc_engine_submit_all(engine, 0, nullptr, 1, unchanged) == PC_INVALID_ARGUMENT);
  CHECK(pc_engine_submit_all(engine, 0, requests, 1, nullptr) == PC_INVALID_ARGUMENT);
  CHECK(pc_engine_submit_all(engine, 99, requests, 1, unchanged) == PC_INVALID_ARGUMENT);
  CHECK(unchanged[0] == 7);
  CHECK(pc_engine_submit_all(engine, 0, nullptr, 0, nullptr) == PC_OK);
  int32_t busy = 1;
  CHECK(pc_engine_busy(engine, &busy) == PC_OK);
  CHECK(busy == 0);
}

TEST_CASE("a request is checked without being submitted") {
  const OpenEngine engine;
  CHECK(pc_engine_validate(engine, kPrompt, 5, nullptr) == PC_OK);
  const Options hot(PC_OPTIONS_SAMPLING, {{"temperature", "-1"}});
  CHECK(pc_engine_validate(engine, kPrompt, 5, hot) == PC_INVALID_ARGUMENT);
  CHECK(says("temperature = -1"));
  CHECK(pc_engine_validate(engine, kPrompt, 0, nullptr) == PC_INVALID_ARGUMENT);
  CHECK(pc_engine_validate(nullptr, kPrompt, 5, nullptr) == PC_INVALID_ARGUMENT);
  int32_t busy = 1;
  CHECK(pc_engine_busy(engine, &busy) == PC_OK);
  CHECK(busy == 0);
}

TEST_CASE("outputs of a queue come there only, and end with it") {
  const OpenEngine engine;
  uint64_t mine = 0, other = 0, ids[2] = {};
  REQUIRE(pc_engine_open_queue(engine, &mine) == PC_OK);
  REQUIRE(pc_engine_open_queue(engine, &other) == PC_OK);
  CHECK(mine != 0);
  CHECK(mine != other);
  const Options greedy(PC_OPTIONS_SAMPLING, {{"temperature", "0"}, {"max_tokens", "6"}});
  const pc_request request = {kPrompt, 3, greedy};
  REQUIRE(pc_engine_submit_all(engine, mine, &request, 1, &ids[0]) == PC_OK);
  REQUIRE(pc_engine_submit_all(engine, other, &request, 1, &ids[1]) == PC_OK);
  int fd = -1;
  REQUIRE(pc_engine_queue_fd(engine, mine, &fd) == PC_OK);
  pollfd entry{fd, POLLIN, 0};
  CHECK(poll(&entry, 1, 60000) == 1);
  const auto first = collect(engine, mine, 1), second = collect(engine, other, 1);
  CHECK(first.at(ids[0]).size() == 6);
  CHECK(second.at(ids[1]) == first.at(ids[0]));
  pc_outputs* outputs = nullptr;
  REQUIRE(pc_engine_wait(engine, 0.0, &outputs) == PC_OK);
  CHECK(pc_outputs_count(outputs) == 0);
  pc_outputs_free(outputs);

  const Options endless(PC_OPTIONS_SAMPLING, {{"max_tokens", "200"}});
  const pc_request slow = {kPrompt, 3, endless};
  REQUIRE(pc_engine_pause(engine) == PC_OK);
  REQUIRE(pc_engine_submit_all(engine, mine, &slow, 1, &ids[0]) == PC_OK);
  CHECK(pc_engine_close_queue(engine, mine) == PC_OK);
  wait_until_idle(engine);  // though no step can run: the request went with its queue
  CHECK(pc_engine_wait_queue(engine, mine, 0.0, &outputs) == PC_INVALID_ARGUMENT);
  CHECK(pc_engine_queue_fd(engine, mine, &fd) == PC_INVALID_ARGUMENT);
  CHECK(pc_engine_close_queue(engine, 0) == PC_OK);  // left alone
  REQUIRE(pc_engine_resume(engine) == PC_OK);
  REQUIRE(pc_engine_submit(engine, kPrompt, 3, greedy, &ids[0]) == PC_OK);
  CHECK(collect(engine, 0, 1).at(ids[0]) == first.begin()->second);
}

TEST_CASE("a callback is called for the news of each step, and no more once it is taken back") {
  const OpenEngine engine;
  struct Seen {
    pc_engine* engine;
    std::atomic<int> calls{0}, tokens{0}, ended{0};
  } seen{engine};
  const auto take = [](void* data) {
    Seen& s = *static_cast<Seen*>(data);
    pc_outputs* outputs = nullptr;
    if (pc_engine_wait(s.engine, 0.0, &outputs) != PC_OK) return;
    for (size_t i = 0; i < pc_outputs_count(outputs); ++i) {
      s.tokens += static_cast<int>(pc_outputs_get(outputs, i)->num_tokens);
      s.ended += pc_outputs_get(outputs, i)->last;
    }
    s.calls += pc_outputs_count(outputs) > 0;
    pc_outputs_free(outputs);
  };
  REQUIRE(pc_engine_on_output(engine, 0, take, &seen) == PC_OK);
  const Options streamed(PC_OPTIONS_SAMPLING, {{"stream", "true"}, {"max_tokens", "5"}});
  uint64_t id = 0;
  REQUIRE(pc_engine_submit(engine, kPrompt, 3, streamed, &id) == PC_OK);
  wait_until_idle(engine);
  REQUIRE(pc_engine_on_output(engine, 0, nullptr, nullptr) == PC_OK);
  CHECK(seen.ended == 1);
  CHECK(seen.tokens == 5);
  CHECK(seen.calls == 5);
  REQUIRE(pc_engine_submit(engine, kPrompt, 3, streamed, &id) == PC_OK);
  CHECK(collect(engine, 0, 1).at(id).size() == 5);
  CHECK(seen.calls == 5);
  CHECK(pc_engine_on_output(engine, 99, take, &seen) == PC_INVALID_ARGUMENT);
  CHECK(pc_engine_on_output(nullptr, 0, take, &seen) == PC_INVALID_ARGUMENT);
}

// rule: capi.reaches-everything
TEST_CASE("a snapshot has in C every part that it has in C++") {
  const OpenEngine engine({{"order", "priority"}});
  const Options endless(PC_OPTIONS_SAMPLING, {{"max_tokens", "30"}, {"n", "2"}, {"priority", "4"}});
  uint64_t id = 0;
  REQUIRE(pc_engine_pause(engine) == PC_OK);
  REQUIRE(pc_engine_submit(engine, kPrompt, 5, endless, &id) == PC_OK);
  pc_snapshot* snapshot = nullptr;
  REQUIRE_MESSAGE(pc_engine_snapshot(engine, nullptr, &snapshot) == PC_OK, pc_last_error());
  const pc_record* record = nullptr;
  REQUIRE(pc_snapshot_values(snapshot, &record) == PC_OK);
  CHECK(number(record, "num_blocks") == 100);
  CHECK(number(record, "block_size") == 16);
  size_t count = 0;
  const uint8_t* cells = nullptr;
  REQUIRE(pc_snapshot_bytes(snapshot, "cells", &cells, &count) == PC_OK);
  REQUIRE(count == 100);
  CHECK(std::all_of(cells, cells + count, [](uint8_t cell) { return cell == pagedcore::kFreeCell; }));
  REQUIRE(pc_snapshot_count(snapshot, "requests", &count) == PC_OK);
  REQUIRE(count == 1);
  REQUIRE(pc_snapshot_record(snapshot, "requests", 0, &record) == PC_OK);
  CHECK(number(record, "id") == static_cast<double>(id));
  CHECK(number(record, "prompt_tokens") == 5);
  CHECK(number(record, "num_samples") == 2);
  CHECK(number(record, "priority") == 4);
  const char* place = nullptr;
  REQUIRE(pc_record_text(record, "place", &place) == PC_OK);
  CHECK(std::string(place) == "waiting");

  // Each name of the C++ list is in one of the kinds.
  for (const char* name : {"tables", "steps"}) CHECK(pc_snapshot_count(snapshot, name, &count) == PC_OK);
  CHECK(pc_snapshot_bytes(snapshot, "swap_cells", &cells, &count) == PC_OK);
  const uint32_t* entries = nullptr;
  CHECK(pc_snapshot_numbers(snapshot, "entries", &entries, &count) == PC_OK);
  REQUIRE(pc_snapshot_values(snapshot, &record) == PC_OK);
  std::size_t parts = pc_record_count(record) + 6;
  pagedcore::EngineSnapshot::fields([&](const auto&) { --parts; });
  CHECK(parts == 0);

  CHECK(pc_snapshot_count(snapshot, "cells", &count) == PC_INVALID_ARGUMENT);
  CHECK(says("what a snapshot has of that kind: requests, tables, steps"));
  CHECK(pc_snapshot_record(snapshot, "requests", 1, &record) == PC_INVALID_ARGUMENT);
  CHECK(says("argument 'index' is 1; there are 1 requests"));
  CHECK(pc_snapshot_bytes(snapshot, nullptr, &cells, &count) == PC_INVALID_ARGUMENT);
  CHECK(pc_snapshot_values(nullptr, &record) == PC_INVALID_ARGUMENT);
  pc_snapshot_free(snapshot);
  pc_snapshot_free(nullptr);

  const Options few(PC_OPTIONS_SNAPSHOT, {{"max_cells", "10"}, {"max_requests", "0"}});
  REQUIRE(pc_engine_snapshot(engine, few, &snapshot) == PC_OK);
  REQUIRE(pc_snapshot_bytes(snapshot, "cells", &cells, &count) == PC_OK);
  CHECK(count == 10);
  REQUIRE(pc_snapshot_values(snapshot, &record) == PC_OK);
  CHECK(number(record, "requests_left_out") == 1);
  pc_snapshot_free(snapshot);
  const Options none(PC_OPTIONS_SNAPSHOT, {{"max_cells", "0"}});
  CHECK(pc_engine_snapshot(engine, none, &snapshot) == PC_INVALID_ARGUMENT);
  CHECK(says("max_cells"));
  CHECK(pc_engine_snapshot(engine, endless, &snapshot) == PC_INVALID_ARGUMENT);
  CHECK(says("PC_OPTIONS_SNAPSHOT"));
  CHECK(pc_engine_abort(engine, id) == PC_OK);
  CHECK(pc_engine_resume(engine) == PC_OK);
  collect(engine, 0, 1);
}

TEST_CASE("an engine says what it runs on") {
  const OpenEngine engine;
  char text[512] = "";
  size_t length = 0;
  REQUIRE(pc_engine_describe(engine, text, sizeof text, &length) == PC_OK);
  CHECK(length == std::strlen(text));
  CHECK(std::string(text).find("cpu") != std::string::npos);
  char cut[4] = "zzz";
  REQUIRE(pc_engine_describe(engine, cut, sizeof cut, &length) == PC_OK);
  CHECK(std::string(cut) == std::string(text).substr(0, 3));
  CHECK(length == std::strlen(text));
  CHECK(pc_engine_describe(engine, nullptr, 0, &length) == PC_OK);
  CHECK(pc_engine_describe(engine, nullptr, 4, &length) == PC_INVALID_ARGUMENT);
}

TEST_CASE("waiting for news of the prefix cache ends with the first, or in time") {
  const OpenEngine engine({{"cache_events", "100"}, {"enable_prefix_caching", "true"}});
  pc_cache_events* events = nullptr;
  REQUIRE_MESSAGE(pc_engine_wait_cache_events(engine, 0.0, &events) == PC_OK, pc_last_error());
  CHECK(pc_cache_events_count(events) == 0);
  pc_cache_events_free(events);
  std::vector<int32_t> prompt(40, 3);
  uint64_t id = 0;
  REQUIRE(pc_engine_submit(engine, prompt.data(), prompt.size(), nullptr, &id) == PC_OK);
  REQUIRE(pc_engine_wait_cache_events(engine, 60.0, &events) == PC_OK);
  CHECK(pc_cache_events_count(events) > 0);
  pc_cache_events_free(events);
  CHECK(pc_engine_wait_cache_events(engine, NAN, &events) == PC_INVALID_ARGUMENT);
}
