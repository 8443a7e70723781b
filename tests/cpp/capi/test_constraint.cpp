// Requests held to a form by a matcher whose functions a C caller hands over.
#include <doctest/doctest.h>

#include <atomic>
#include <cmath>
#include <vector>

#include "harness.hpp"

using namespace capi_test;

namespace {

const int32_t kPrompt[] = {5, 6, 7, 8, 9};
constexpr uint32_t kFirst = 11, kLast = 19;
std::atomic<int> living{0};

/// One token more than the one before, from kFirst to kLast, and then none.
struct Place {
  uint32_t next = kFirst;
};

int32_t compute_mask(void* matcher, uint32_t* mask, size_t) {
  const uint32_t next = static_cast<Place*>(matcher)->next;
  if (next > kLast) return 1;
  mask[next / 32] |= 1u << next % 32;
  return 0;
}
int32_t consume_token(void* matcher, uint32_t token) {
  Place* place = static_cast<Place*>(matcher);
  if (token != place->next) return 1;
  ++place->next;
  return 0;
}
const char* error(void*) { return "the numbers have come to an end"; }
void* clone(const void* matcher) {
  ++living;
  return new Place(*static_cast<const Place*>(matcher));
}
void drop(void* matcher) {
  --living;
  delete static_cast<Place*>(matcher);
}

pc_constraint_table table() { return {sizeof(pc_constraint_table), compute_mask, consume_token, error, clone, drop}; }

Place* matcher() {
  ++living;
  return new Place;
}

struct Ended {
  std::vector<int32_t> tokens;
  pc_finish finish = PC_FINISH_NONE;
  std::string error;
};

/// Of the request's only output.
Ended run(pc_engine* engine, const pc_options* options) {
  uint64_t id = 0;
  REQUIRE_MESSAGE(pc_engine_submit(engine, kPrompt, 5, options, &id) == PC_OK, pc_last_error());
  Ended ended;
  for (bool last = false; !last;) {
    pc_outputs* outputs = nullptr;
    REQUIRE(pc_engine_wait(engine, 60.0, &outputs) == PC_OK);
    REQUIRE(pc_outputs_count(outputs) > 0);
    for (size_t i = 0; i < pc_outputs_count(outputs); ++i) {
      const pc_output& o = *pc_outputs_get(outputs, i);
      ended.tokens.insert(ended.tokens.end(), o.tokens, o.tokens + o.num_tokens);
      if (o.last == 0) continue;
      last = true;
      ended.finish = o.finish;
      if (o.error != nullptr) ended.error = o.error;
    }
    pc_outputs_free(outputs);
  }
  return ended;
}

}  // namespace

TEST_CASE("outputs are held to what a matcher of the caller's allows, and it is freed with the last that uses it") {
  const std::vector<int32_t> numbers{11, 12, 13, 14, 15};
  {
    const Container container;
    pc_engine* engine = nullptr;
    REQUIRE(pc_engine_open(container.path().c_str(), SmallEngine(), &engine) == PC_OK);
    const pc_constraint_table functions = table();
    {
      const Options held(PC_OPTIONS_SAMPLING, {{"max_tokens", "5"}, {"seed", "1"}});
      const std::vector<int32_t> unheld = run(engine, held).tokens;
      CHECK(unheld != numbers);
      REQUIRE_MESSAGE(pc_options_set_constraint(held, &functions, matcher(), 64) == PC_OK, pc_last_error());
      CHECK(run(engine, held).tokens == numbers);
      CHECK(run(engine, held).tokens == numbers);  // options are used again
      pc_options* copy = nullptr;
      REQUIRE(pc_options_copy(held, &copy) == PC_OK);
      CHECK(run(engine, copy).tokens == numbers);
      REQUIRE(pc_options_set_constraint(copy, nullptr, nullptr, 0) == PC_OK);
      CHECK(run(engine, copy).tokens == unheld);
      pc_options_free(copy);
      CHECK(run(engine, held).tokens == numbers);
    }
    {
      const Options search(PC_OPTIONS_BEAM_SEARCH, {{"beam_width", "2"}, {"max_tokens", "5"}});
      REQUIRE_MESSAGE(pc_options_set_constraint(search, &functions, matcher(), 0) == PC_OK, pc_last_error());
      CHECK(run(engine, search).tokens == numbers);
    }
    {
      const Options long_one(PC_OPTIONS_SAMPLING, {{"max_tokens", "50"}});
      REQUIRE(pc_options_set_constraint(long_one, &functions, matcher(), 0) == PC_OK);
      const Ended ended = run(engine, long_one);
      CHECK(ended.finish == PC_FINISH_ERROR);
      CHECK_MESSAGE(ended.error.find("the numbers have come to an end") != std::string::npos, ended.error);
    }
    pc_engine_free(engine);
  }
  CHECK(living == 0);
}

TEST_CASE("a constraint that cannot be is refused, and its matcher stays the caller's") {
  const Options sampling(PC_OPTIONS_SAMPLING);
  Place place;
  pc_constraint_table functions = table();
  const auto refused = [&](pc_options* options, const pc_constraint_table* given, void* matcher, const char* why) {
    CHECK(pc_options_set_constraint(options, given, matcher, 0) == PC_INVALID_ARGUMENT);
    CHECK_MESSAGE(says(why), pc_last_error());
  };
  refused(nullptr, &functions, &place, "options");
  refused(sampling, nullptr, &place, "'table' is null");
  refused(sampling, &functions, nullptr, "needs a matcher");
  refused(Options(PC_OPTIONS_ENGINE), &functions, &place, "PC_OPTIONS_BEAM_SEARCH");
  refused(Options(PC_OPTIONS_EMBEDDING), &functions, &place, "PC_OPTIONS_SAMPLING");
  functions.struct_size = 8;
  refused(sampling, &functions, &place, "struct_size is 8");
  functions = table();
  functions.clone = nullptr;
  refused(sampling, &functions, &place, "one is null");
  CHECK(living == 0);
}
