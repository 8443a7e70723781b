// Lengths, capacities and indices beyond any array: refused before anything behind the array is read or written.
#include <doctest/doctest.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "harness.hpp"
#include "pagedcore/pagedcore.h"

using namespace capi_test;

namespace {

/// Lengths whose bytes (4 or 8 an element) are more than an address space, or wrap around to few or none.
constexpr size_t kBeyond[] = {size_t{1} << 40, size_t{1} << 60, (size_t{1} << 61) + 1, size_t{1} << 61,
                              size_t{1} << 62, size_t{1} << 63, SIZE_MAX / 4 + 1,      SIZE_MAX};

}  // namespace

TEST_CASE("a prompt that is said to be longer than a context is not read") {
  const Container container;
  const SmallEngine options;
  pc_engine* engine = nullptr;
  REQUIRE(pc_engine_open(container.path().c_str(), options, &engine) == PC_OK);
  const auto prompt = std::make_unique<int32_t>(5);  // alone in its allocation, so that a checker sees reads behind it
  std::vector<size_t> lengths(std::begin(kBeyond), std::end(kBeyond));
  lengths.push_back(257);  // one more than the model's context
  uint64_t id = 77;
  for (const size_t length : lengths) {
    CAPTURE(length);
    CHECK(pc_engine_submit(engine, prompt.get(), length, nullptr, &id) == PC_INVALID_ARGUMENT);
    CHECK(says(("argument 'prompt' has " + std::to_string(length) + " elements; 256 at most").c_str()));
    for (const auto call : {pc_engine_register_prefix, pc_engine_register_shared_prefix}) {
      CHECK(call(engine, "name", prompt.get(), length, 3, &id) == PC_INVALID_ARGUMENT);
      CHECK(says(("argument 'tokens' has " + std::to_string(length) + " elements; 256 at most").c_str()));
    }
  }
  CHECK(id == 77);
  // A null array of any length but 0 is one that is missing.
  CHECK(pc_engine_submit(engine, nullptr, size_t{1} << 61, nullptr, &id) == PC_INVALID_ARGUMENT);
  CHECK(std::string(pc_last_error()) == "argument 'prompt' is null");

  CHECK(pc_engine_submit(engine, prompt.get(), 1, nullptr, &id) == PC_OK);
  int32_t busy = 1;
  size_t tokens = 0;
  while (busy != 0) {
    pc_outputs* outputs = nullptr;
    REQUIRE(pc_engine_wait(engine, 1.0, &outputs) == PC_OK);
    const size_t count = pc_outputs_count(outputs);
    for (size_t i = 0; i < count; ++i) tokens += pc_outputs_get(outputs, i)->num_tokens;
    for (const size_t index : kBeyond) CHECK(pc_outputs_get(outputs, index) == nullptr);
    CHECK(pc_outputs_get(outputs, count) == nullptr);
    pc_outputs_free(outputs);
    REQUIRE(pc_engine_busy(engine, &busy) == PC_OK);
  }
  CHECK(tokens == 16);  // the default max_tokens
  pc_engine_free(engine);
}

TEST_CASE("lists of options that are said to be longer than they can be are not read") {
  const Options sampling(PC_OPTIONS_SAMPLING);
  const auto token = std::make_unique<int32_t>(5);
  const auto bias = std::make_unique<pc_token_bias>(pc_token_bias{5, 1.0f});
  for (const size_t length : kBeyond) {
    CAPTURE(length);
    for (const char* name : {"stop_token_ids", "banned_tokens", "allowed_token_ids"})
      CHECK(pc_options_set_tokens(sampling, name, token.get(), length) == PC_INVALID_ARGUMENT);
    CHECK(says("argument 'tokens' has "));
    CHECK(pc_options_set_biases(sampling, "logit_bias", bias.get(), length) == PC_INVALID_ARGUMENT);
    CHECK(says("argument 'biases' has "));
    pc_option_info info = {};
    info.struct_size = sizeof info;
    CHECK(pc_options_describe(sampling, length, &info) == PC_INVALID_ARGUMENT);
  }
  CHECK(sampling.get("stop_token_ids") == Options(PC_OPTIONS_SAMPLING).get("stop_token_ids"));
  CHECK(sampling.get("logit_bias") == Options(PC_OPTIONS_SAMPLING).get("logit_bias"));
}

TEST_CASE("no more is written than there is, whatever capacity is named") {
  const Container container;
  const SmallEngine options;
  const auto ids = std::make_unique<int32_t[]>(2);  // 2 and 7
  const auto text = std::make_unique<char[]>(4);    // "100" and its end
  for (const size_t capacity : kBeyond) {
    CAPTURE(capacity);
    size_t count = 0;
    REQUIRE(pc_container_eos_token_ids(container.path().c_str(), ids.get(), capacity, &count) == PC_OK);
    CHECK(count == 2);
    CHECK(ids[0] == 2);
    CHECK(ids[1] == 7);
    REQUIRE(pc_options_get(options, "num_blocks", text.get(), capacity, &count) == PC_OK);
    CHECK(count == 3);
    CHECK(std::string(text.get()) == "100");
    // A struct of another version: no more than its size is written.
    struct {
      pc_option_info info;
      char behind = 'x';
    } held = {};
    held.info.struct_size = capacity;
    CHECK(pc_options_describe(options, 0, &held.info) == PC_OK);
    CHECK(held.behind == 'x');
  }
  pc_record* record = nullptr;
  REQUIRE(pc_container_model(container.path().c_str(), &record) == PC_OK);
  for (const size_t index : kBeyond) CHECK(pc_record_name(record, index) == nullptr);
  pc_record_free(record);
}
