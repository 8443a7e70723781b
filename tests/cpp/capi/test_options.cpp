// What only names reach: options, records, beams, prefixes, scoring, events.
#include <doctest/doctest.h>

#include <cstring>
#include <set>
#include <string>
#include <vector>

#include "harness.hpp"
#include "pagedcore/options.hpp"

using namespace capi_test;

namespace {

/// All outputs of an engine until it is idle.
template <class Each>
void drain(pc_engine* engine, const Each& each) {
  int32_t busy = 1;
  while (busy != 0) {
    pc_outputs* outputs = nullptr;
    REQUIRE(pc_engine_wait(engine, 1.0, &outputs) == PC_OK);
    for (size_t i = 0; i < pc_outputs_count(outputs); ++i) each(*pc_outputs_get(outputs, i));
    pc_outputs_free(outputs);
    REQUIRE(pc_engine_busy(engine, &busy) == PC_OK);
  }
}

}  // namespace

// rule: capi.reaches-everything
TEST_CASE("every option of C++ has a name in C, a description, and the same default") {
  const auto check = []<class T>(pc_options_kind kind, const T&) {
    const Options options(kind);
    size_t count = 0;
    REQUIRE(pc_options_count(options, &count) == PC_OK);
    const auto expected = pagedcore::options_of<T>();
    REQUIRE(count == expected.size());
    for (size_t i = 0; i < count; ++i) {
      pc_option_info info = {};
      info.struct_size = sizeof info;
      REQUIRE(pc_options_describe(options, i, &info) == PC_OK);
      CAPTURE(std::string(info.name));
      CHECK(info.name == expected[i].name);
      const bool nothing =
          !expected[i].zero.empty() && (expected[i].default_value == "0" || expected[i].default_value.empty());
      CHECK(std::string(info.default_value) == (nothing ? "none" : expected[i].default_value));
      CHECK(options.get(info.name) == expected[i].default_value);
      CHECK(std::strlen(info.doc) > 0);
    }
  };
  check(PC_OPTIONS_ENGINE, pagedcore::EngineConfig{});
  check(PC_OPTIONS_SAMPLING, pagedcore::SamplingRequest{});
  check(PC_OPTIONS_BEAM_SEARCH, pagedcore::BeamSearchRequest{});
  check(PC_OPTIONS_EMBEDDING, pagedcore::EmbeddingRequest{});
}

// rule: capi.old-programs-run
TEST_CASE("a program of an older header gets the members that it knows of") {
  const Options options(PC_OPTIONS_SAMPLING);
  pc_option_info info;
  std::memset(&info, 0x55, sizeof info);
  const pc_option_info untouched = info;
  info.struct_size = offsetof(pc_option_info, limits);
  REQUIRE(pc_options_describe(options, 0, &info) == PC_OK);
  CHECK(std::string(info.name) == "n");
  CHECK(std::memcmp(&info.limits, &untouched.limits, sizeof info - offsetof(pc_option_info, limits)) == 0);
  info.struct_size = sizeof(size_t) + 1;  // what fits in part is left alone
  info.name = nullptr;
  REQUIRE(pc_options_describe(options, 0, &info) == PC_OK);
  CHECK(info.name == nullptr);
  info.struct_size = 4096;  // a newer one
  REQUIRE(pc_options_describe(options, 0, &info) == PC_OK);
  CHECK(info.struct_size == sizeof info);
  info.struct_size = 3;
  CHECK(pc_options_describe(options, 0, &info) == PC_INVALID_ARGUMENT);
  info.struct_size = sizeof info;
  CHECK(pc_options_describe(options, 10000, &info) == PC_INVALID_ARGUMENT);
}

// rule: capi.bad-arguments-are-named
TEST_CASE("what a C caller may get wrong is a status and a message, and changes nothing") {
  const Options options(PC_OPTIONS_SAMPLING, {{"temperature", "0.5"}});
  CHECK(pc_options_set(options, "temprature", "1") == PC_INVALID_ARGUMENT);
  CHECK(says("did you mean 'temperature'?"));
  CHECK(pc_options_set(options, "temperature", "hot") == PC_INVALID_ARGUMENT);
  CHECK(pc_options_set(options, "temperature", "1,5") == PC_INVALID_ARGUMENT);
  CHECK(options.get("temperature") == "0.5");
  CHECK(pc_options_set_real(options, "n", 1.5) == PC_INVALID_ARGUMENT);
  CHECK(pc_options_set_real(options, "max_tokens", 100000.0) == PC_OK);  // not as 1e+05
  CHECK(options.get("max_tokens") == "100000");
  CHECK(pc_options_set_integer(options, "n", -1) == PC_INVALID_ARGUMENT);
  CHECK(options.get("n") == "1");
  CHECK(pc_options_set(nullptr, "n", "1") == PC_INVALID_ARGUMENT);
  CHECK(pc_options_set(options, nullptr, "1") == PC_INVALID_ARGUMENT);
  CHECK(pc_options_set(options, "n", nullptr) == PC_INVALID_ARGUMENT);
  CHECK(says("argument 'text' is null"));
  const int32_t tokens[] = {1, 2};
  const pc_token_bias biases[] = {{1, 0.5f}};
  CHECK(pc_options_set_tokens(options, "temperature", tokens, 2) == PC_INVALID_ARGUMENT);
  CHECK(says("temperature is not a list of token ids"));
  CHECK(pc_options_set_tokens(options, "stop_token_ids", nullptr, 2) == PC_INVALID_ARGUMENT);
  CHECK(pc_options_set_tokens(options, "stop_token_ids", tokens, SIZE_MAX / 4) == PC_INVALID_ARGUMENT);
  CHECK(pc_options_set_tokens(options, "stop_token_ids", tokens, 2) == PC_OK);
  CHECK(options.get("stop_token_ids") == "1,2");
  CHECK(pc_options_set_tokens(options, "stop_token_ids", nullptr, 0) == PC_OK);
  CHECK(options.get("stop_token_ids") == "");
  CHECK(pc_options_set(options, "allowed_token_ids", "none") == PC_OK);
  CHECK(pc_options_set_biases(options, "stop_token_ids", biases, 1) == PC_INVALID_ARGUMENT);
  CHECK(pc_options_set_biases(options, "logit_bias", biases, 1) == PC_OK);
  CHECK(options.get("logit_bias") == "1:0.5");
  CHECK(pc_options_new(PC_OPTIONS_ENGINE, nullptr) == PC_INVALID_ARGUMENT);
  pc_options* none = nullptr;
  const auto no_kind = static_cast<pc_options_kind>(3);  // within the bits of the enum, and none of its values
  CHECK(pc_options_new(no_kind, &none) == PC_INVALID_ARGUMENT);
  CHECK(none == nullptr);
  pc_options_free(nullptr);

  char text[4];
  size_t length = 0;
  CHECK(pc_options_get(options, "logit_bias", text, sizeof text, &length) == PC_OK);  // cut, and said so
  CHECK(std::string(text) == "1:0");
  CHECK(length == 5);
  CHECK(pc_options_get(options, "logit_bias", nullptr, 0, &length) == PC_OK);
  CHECK(pc_options_get(options, "logit_bias", nullptr, 9, &length) == PC_INVALID_ARGUMENT);

  pc_options* copy = nullptr;
  REQUIRE(pc_options_copy(options, &copy) == PC_OK);
  CHECK(pc_options_set(copy, "temperature", "2") == PC_OK);
  CHECK(options.get("temperature") == "0.5");
  pc_options_free(copy);
}

TEST_CASE("beams, a registered prefix, scoring and cache events are reached from C") {
  const Container container;
  SmallEngine config;
  config.set("cache_events", "100");
  config.set("swap_space", "1MiB");
  config.set("preemption", "swap");
  pc_engine* engine = nullptr;
  REQUIRE(pc_engine_open(container.path().c_str(), config, &engine) == PC_OK);

  std::vector<int32_t> rules(40);
  for (size_t i = 0; i < rules.size(); ++i) rules[i] = static_cast<int32_t>(3 * i % 151);
  uint64_t registered = 0;
  REQUIRE(pc_engine_register_prefix(engine, "rules", rules.data(), rules.size(), 0, &registered) == PC_OK);
  drain(engine, [&](const pc_output& o) {
    CHECK(o.request == registered);
    CHECK(o.finish == PC_FINISH_LENGTH);
  });

  std::vector<int32_t> prompt = rules;
  prompt.push_back(5);
  Options search(PC_OPTIONS_BEAM_SEARCH, {{"beam_width", "3"}, {"n", "2"}, {"max_tokens", "6"}, {"prefix", "rules"}});
  uint64_t id = 0;
  REQUIRE(pc_engine_submit(engine, prompt.data(), prompt.size(), search, &id) == PC_OK);
  std::vector<float> scores;
  drain(engine, [&](const pc_output& o) {
    CHECK(std::string(o.error) == "");
    CHECK(o.struct_size == sizeof(pc_output));
    CHECK(o.num_tokens == 6);
    CHECK(o.cached_tokens == 40);
    scores.push_back(o.score);
  });
  REQUIRE(scores.size() == 2);
  CHECK(scores[0] >= scores[1]);
  CHECK(scores[0] < 0.0f);

  const Options scoring(PC_OPTIONS_SAMPLING, {{"max_tokens", "0"}, {"prompt_logprobs", "0"}});
  REQUIRE(pc_engine_submit(engine, prompt.data(), prompt.size(), scoring, &id) == PC_OK);
  drain(engine, [&](const pc_output& o) { CHECK(o.num_prompt_logprobs == prompt.size() - 1); });

  pc_cache_events* events = nullptr;
  REQUIRE(pc_engine_cache_events(engine, &events) == PC_OK);
  REQUIRE(pc_cache_events_count(events) > 0);
  CHECK(pc_cache_events_get(events, 0)->kind == PC_CACHE_STORED);
  CHECK(pc_cache_events_get(events, 0)->num_tokens == 16);
  CHECK(pc_cache_events_get(events, 0)->tokens[1] == 3);
  CHECK(pc_cache_events_get(events, pc_cache_events_count(events)) == nullptr);
  pc_cache_events_free(events);
  pc_cache_events_free(nullptr);

  REQUIRE(pc_engine_release_prefix(engine, "rules") == PC_OK);
  CHECK(pc_engine_release_prefix(engine, "rules") == PC_INVALID_ARGUMENT);
  CHECK(pc_engine_submit(engine, prompt.data(), prompt.size(), search, &id) == PC_INVALID_ARGUMENT);
  CHECK(says("prefix 'rules' is not registered under salt"));
  pc_engine_free(engine);
}

TEST_CASE("a container says what model it holds and which tokens end a sequence") {
  const Container container;
  pc_record* model = nullptr;
  REQUIRE(pc_container_model(container.path().c_str(), &model) == PC_OK);
  double layers = 0.0;
  CHECK(pc_record_number(model, "num_layers", &layers) == PC_OK);
  CHECK(layers == 2.0);
  const char* text = nullptr;
  CHECK(pc_record_text(model, "activation", &text) == PC_OK);
  CHECK(std::string(text) == "silu");
  CHECK(pc_record_number(model, "activation", &layers) == PC_INVALID_ARGUMENT);
  CHECK(says("pc_record_text()"));
  pc_record_free(model);

  pc_record* about = nullptr;
  CHECK(pc_container_text(container.path().c_str(), &about) == PC_OK);
  CHECK(pc_record_text(about, "eos_token_ids", &text) == PC_OK);
  CHECK(std::string(text) == "2,7");
  CHECK(pc_record_text(about, "tokenizer", &text) == PC_OK);
  CHECK(std::string(text).empty());
  pc_record_free(about);
  CHECK(pc_container_text("no/such/file", &about) == PC_IO);

  int32_t eos[1] = {-1};
  size_t count = 0;
  CHECK(pc_container_eos_token_ids(container.path().c_str(), nullptr, 0, &count) == PC_OK);
  CHECK(count == 2);
  CHECK(pc_container_eos_token_ids(container.path().c_str(), eos, 1, &count) == PC_OK);
  CHECK(eos[0] == 2);
  CHECK(pc_container_eos_token_ids(container.path().c_str(), nullptr, 1, &count) == PC_INVALID_ARGUMENT);
}
