#include <doctest/doctest.h>

#include <functional>
#include <limits>

#include "pagedcore/error.hpp"
#include "tiny_models.hpp"

using namespace tiny;

namespace {

using Text = std::map<std::string, std::string>;

Text text_with(const std::string& key, const std::string& value) {
  Text text = gemma().d.to_text();
  text[key] = value;
  return text;
}

}  // namespace

// rule: model.description-is-text
TEST_CASE("a description survives text and back") {
  ModelDescription d = gemma().d;
  d.architecture = "a name, with = signs";
  d.norm.eps = 1.1754944e-38f;
  d.position.rope_inv_freq = {0.1f, 1.0f / 3.0f, 1e-30f};
  d.attention.qk_norm = true;
  const Text text = d.to_text();
  const ModelDescription back = ModelDescription::from_text(text);
  CHECK(back.to_text() == text);
  CHECK(back.architecture == d.architecture);
  CHECK(back.norm.eps == d.norm.eps);
  CHECK(back.position.rope_inv_freq == d.position.rope_inv_freq);
  CHECK(back.attention.windows == d.attention.windows);
  CHECK(back.mlp.activation == d.mlp.activation);
  CHECK(back.tied_embeddings);
  CHECK(back.attention.qk_norm);
  CHECK(text.at("norm") == "rms");
  CHECK(text.at("windows") == "5,0,17");

  ModelDescription plain = gpt().d;
  CHECK(plain.to_text().at("rope_inv_freq").empty());
  CHECK(ModelDescription::from_text(plain.to_text()).position.rope_inv_freq.empty());

  const ModelDescription mixed = mixture().d;
  CHECK(mixed.to_text().at("mixture_layers") == "1,0,1");
  CHECK(ModelDescription::from_text(mixed.to_text()).to_text() == mixed.to_text());
}

TEST_CASE("absent fields keep their defaults") {
  Text text = llama().d.to_text();
  text.erase("logit_softcap");
  text.erase("activation");
  const ModelDescription d = ModelDescription::from_text(text);
  CHECK(d.logit_softcap == 0.0f);
  CHECK(d.mlp.activation == Activation::silu);
}

// rule: model.description-is-text
TEST_CASE("text that means nothing is refused by name") {
  const std::pair<const char*, const char*> cases[] = {{"vocab_size", ""},
                                                       {"vocab_size", "12x"},
                                                       {"vocab_size", " 12"},
                                                       {"vocab_size", "1e3"},
                                                       {"vocab_size", "2147483648"},
                                                       {"vocab_size", "-3"},
                                                       {"vocab_size", "0"},
                                                       {"hidden_size", "2147483647"},
                                                       {"num_layers", "100000"},
                                                       {"num_heads", "3"},
                                                       {"num_heads", "16777216"},
                                                       {"norm_eps", "nan"},
                                                       {"norm_eps", "inf"},
                                                       {"norm_eps", "1e99"},
                                                       {"norm_eps", "-1"},
                                                       {"norm_eps", "0x1p3"},
                                                       {"norm_eps", "1,5"},
                                                       {"norm", "batch"},
                                                       {"activation", "SILU"},
                                                       {"gated_mlp", "2"},
                                                       {"tied_embeddings", "yes"},
                                                       {"windows", "1,2"},
                                                       {"windows", "1,,2"},
                                                       {"windows", "1,2,3,"},
                                                       {"windows", "1,2,-3"},
                                                       {"windows", ","},
                                                       {"rope_inv_freq", "1,2,3,4,5,6,7,8,9"},
                                                       {"rope_inv_freq", "1,nan"},
                                                       {"rope_inv_freq", "1;2"},
                                                       {"norm_place", "behind"},
                                                       {"qk_norm_span", "tail"},
                                                       {"rope_layers", "0,0"},
                                                       {"rope_layers", "0,0,1"},
                                                       {"rope_layers", "0,-2,0"},
                                                       {"rope_tables", "3"},
                                                       {"rope_tables", "0"},
                                                       {"learned_positions", "127"},
                                                       {"alibi_slopes", "0.5"},
                                                       {"alibi_slopes", "0.5,0.25,0.125,-1"},
                                                       {"embedding_size", "-1"},
                                                       {"residual_scale", "inf"},
                                                       {"attention_scale", "-0.5"},
                                                       {"max_context", "1073741825"}};
  for (const auto& entry : cases) {
    const std::string key = entry.first, value = entry.second;
    CAPTURE(key);
    CAPTURE(value);
    try {
      ModelDescription::from_text(text_with(key, value));
      FAIL_CHECK("was accepted");
    } catch (const InvalidArgument& error) {
      CHECK(std::string(error.what()).find(key) != std::string::npos);
    }
  }
  CHECK_THROWS_WITH_AS(ModelDescription::from_text(text_with("num_wheels", "8")),
                       doctest::Contains("unknown key 'num_wheels'"), InvalidArgument);
  CHECK_THROWS_AS(ModelDescription::from_text({}), InvalidArgument);
}

TEST_CASE("validate names the field that contradicts the rest") {
  const std::pair<const char*, std::function<void(ModelDescription&)>> cases[] = {
      {"intermediate_size", [](auto& d) { d.mlp.intermediate_size = 0; }},
      {"head_dim", [](auto& d) { d.attention.head_dim = 1 << 24; }},
      {"num_kv_heads", [](auto& d) { d.attention.num_kv_heads = 3; }},
      {"activation", [](auto& d) { d.mlp.activation = static_cast<Activation>(9); }},
      {"norm", [](auto& d) { d.norm.kind = static_cast<NormKind>(2); }},
      {"logit_scale", [](auto& d) { d.logit_scale = std::numeric_limits<float>::infinity(); }},
      {"rope_inv_freq", [](auto& d) { d.position.rope_inv_freq.resize(9); }},
      {"windows", [](auto& d) { d.attention.windows = {1}; }},
      {"rope_tables", [](auto& d) { d.position.rope_tables = 3; }},
      {"learned_offset", [](auto& d) { d.position.learned = 129, d.position.learned_offset = 2; }},
      {"norm_place", [](auto& d) { d.parallel = true, d.norm.place = NormPlace::both; }},
      {"experts_per_token", [](auto& d) { d.mixture.experts_per_token = 6; }},
      {"experts_per_token", [](auto& d) { d.mixture.experts_per_token = 0; }},
      {"expert_size", [](auto& d) { d.mixture.expert_size = 0; }},
      {"mixture_layers",
       [](auto& d) {
         d.mixture.layers = {1, 0};
       }},
      {"mixture_layers",
       [](auto& d) {
         d.mixture.layers = {1, 0, 2};
       }},
      {"shared_expert_gate", [](auto& d) { d.mixture.shared_size = 0; }},
      {"router_scale", [](auto& d) { d.mixture.router_scale = 0; }},
      {"router", [](auto& d) { d.mixture.router = static_cast<RouterKind>(2); }},
      {"gated_mlp", [](auto& d) { d.mlp.gated = false; }},
      {"clamped_swiglu",
       [](auto& d) { d.mixture.num_experts = 0, d.mlp.gated = false, d.mlp.activation = Activation::clamped_swiglu; }},
      {"swiglu_limit", [](auto& d) { d.mlp.swiglu_limit = 0.0f; }},
      {"mixture_biases", [](auto& d) { d.mixture.biases = true; }},
      {"architecture", [](auto& d) { d.architecture = "two\nlines"; }}};
  for (const auto& [field, damage] : cases) {
    ModelDescription d = mixture().d;
    d.validate();
    damage(d);
    CHECK_THROWS_WITH_AS(d.validate(), doctest::Contains(field), InvalidArgument);
  }
}
