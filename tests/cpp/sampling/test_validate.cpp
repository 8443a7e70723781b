#include <doctest/doctest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <string>

#include "pagedcore/error.hpp"
#include "pagedcore/sampling.hpp"

using namespace pagedcore;

namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

std::string refusal(const std::function<void(SamplingParams&)>& change) {
  SamplingParams params;
  change(params);
  try {
    validate(params, 100);
  } catch (const InvalidArgument& error) {
    return error.what();
  }
  return {};
}

}  // namespace

TEST_CASE("defaults and limits are valid") {
  using P = SamplingParams;
  CHECK(refusal([](P&) {}).empty());
  CHECK(refusal([](P& p) { p.n = 65536; }).empty());
  CHECK(refusal([](P& p) { p.max_tokens = 0; }).empty());
  CHECK(refusal([](P& p) { p.temperature = 0.0f; }).empty());
  CHECK(refusal([](P& p) { p.temperature = 1e-42f; }).empty());
  CHECK(refusal([](P& p) { p.top_k = -1; }).empty());
  CHECK(refusal([](P& p) { p.top_k = 1000; }).empty());
  CHECK(refusal([](P& p) { p.top_p = 1e-30f; }).empty());
  CHECK(refusal([](P& p) { p.min_p = 1.0f; }).empty());
  CHECK(refusal([](P& p) { p.presence_penalty = -2.0f; }).empty());
  CHECK(refusal([](P& p) { p.frequency_penalty = 2.0f; }).empty());
  CHECK(refusal([](P& p) { p.logprobs = 100; }).empty());
  CHECK(refusal([](P& p) { p.logit_bias = {{99, -kInf}, {0, 1e30f}}; }).empty());
  CHECK(refusal([](P& p) { p.stop_token_ids = {0, 99}; }).empty());
}

// rule: sampling.limits-are-named
TEST_CASE("every value out of range is refused by name") {
  using P = SamplingParams;
  const struct {
    const char* name;
    std::function<void(P&)> change;
  } cases[] = {
      {"n", [](P& p) { p.n = 0; }},
      {"n", [](P& p) { p.n = 65537; }},
      {"min_tokens", [](P& p) { p.min_tokens = 17; }},
      {"temperature", [](P& p) { p.temperature = -0.1f; }},
      {"temperature", [](P& p) { p.temperature = NAN; }},
      {"temperature", [](P& p) { p.temperature = kInf; }},
      {"top_k", [](P& p) { p.top_k = -2; }},
      {"top_p", [](P& p) { p.top_p = 0.0f; }},
      {"top_p", [](P& p) { p.top_p = 1.01f; }},
      {"top_p", [](P& p) { p.top_p = NAN; }},
      {"min_p", [](P& p) { p.min_p = -0.01f; }},
      {"min_p", [](P& p) { p.min_p = 1.01f; }},
      {"min_p", [](P& p) { p.min_p = NAN; }},
      {"repetition_penalty", [](P& p) { p.repetition_penalty = 0.0f; }},
      {"repetition_penalty", [](P& p) { p.repetition_penalty = kInf; }},
      {"repetition_penalty", [](P& p) { p.repetition_penalty = NAN; }},
      {"presence_penalty", [](P& p) { p.presence_penalty = 2.1f; }},
      {"presence_penalty", [](P& p) { p.presence_penalty = NAN; }},
      {"frequency_penalty", [](P& p) { p.frequency_penalty = -2.1f; }},
      {"frequency_penalty", [](P& p) { p.frequency_penalty = NAN; }},
      {"logprobs", [](P& p) { p.logprobs = -2; }},
      {"logprobs", [](P& p) { p.logprobs = 101; }},
      {"prompt_logprobs", [](P& p) { p.prompt_logprobs = 101; }},
      {"logit_bias",
       [](P& p) {
         p.logit_bias = {{100, 0.0f}};
       }},
      {"logit_bias",
       [](P& p) {
         p.logit_bias = {{-1, 0.0f}};
       }},
      {"logit_bias",
       [](P& p) {
         p.logit_bias = {{1, kInf}};
       }},
      {"logit_bias",
       [](P& p) {
         p.logit_bias = {{1, NAN}};
       }},
      {"banned_tokens",
       [](P& p) {
         p.banned_tokens = {5, 100};
       }},
      {"allowed_token_ids", [](P& p) { p.allowed_token_ids = {-1}; }},
      {"stop_token_ids", [](P& p) { p.stop_token_ids = {100}; }},
  };
  for (const auto& c : cases) {
    const std::string message = refusal(c.change);
    CAPTURE(message);
    CHECK(message.find(std::string("sampling parameter ") + c.name + " ") != std::string::npos);
  }
  CHECK(refusal([](P& p) { p.banned_tokens = {123}; }).find("token 123, but the vocabulary is [0, 100)") !=
        std::string::npos);
}
