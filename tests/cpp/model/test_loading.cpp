// What loading checks, and that the memory plan is what loading then takes.
#include <doctest/doctest.h>

#include "backend/forwarding_backend.hpp"
#include "model/activations.hpp"
#include "pagedcore/error.hpp"
#include "tiny_models.hpp"

using namespace tiny;

namespace {

/// The tensors of a model with some hidden, replaced or added.
class Altered final : public WeightSource {
 public:
  explicit Altered(const WeightMap& map) : tensors(map.tensors()) {}
  bool has(std::string_view name) const override { return tensors.contains(name); }
  HostTensor get(std::string_view name) const override {
    if (!has(name)) throw Corrupt("absent");
    return tensors.find(name)->second;
  }
  std::map<std::string, HostTensor, std::less<>> tensors;
};

Model load(const TinyModel& tiny, const WeightSource& source, Backend& backend) {
  return {tiny.d, source, backend, 32, 4};
}

}  // namespace

// rule: model.plan-is-exact
TEST_CASE("the plan is exactly what a model then holds") {
  for (const auto make : {llama, qwen2, qwen3, gpt, gemma, mixture, sinks, biased_mixture}) {
    for (const DType dtype : {DType::f32, DType::bf16}) {
      for (const std::string& isa : cpu_isas()) {
        const TinyModel tiny = make();
        const auto backend = make_cpu_backend({1, dtype, isa});
        for (const auto& [rows, logit_rows] : {std::pair{1u, 1u}, {33u, 7u}, {8u, 64u}}) {
          const ModelMemory plan = plan_model_memory(tiny.d, *backend, 16, rows, logit_rows);
          const Model model(tiny.d, tiny.weights, *backend, rows, logit_rows);
          CHECK(plan.weights == model.weight_bytes());
          CHECK(plan.activations == model.activation_bytes());
          const auto kv = backend->allocate_kv(model.kv_shape(16), 3);
          CHECK(plan.kv_block == kv->block_bytes());
        }
      }
    }
  }
}

TEST_CASE("matrices that are needed at the same time share no byte, and all lie inside the buffer") {
  using Bytes = std::pair<const std::byte*, const std::byte*>;
  const auto bytes = [](const Tensor& t) {
    const auto* begin = static_cast<const std::byte*>(t.data);
    return Bytes{begin, begin + bytes_of(t.dtype, t.rows * t.cols)};
  };
  for (const auto make : {llama, qwen3, gpt}) {
    for (const DType dtype : {DType::f32, DType::bf16}) {
      const TinyModel tiny = make();
      const auto backend = make_cpu_backend({1, dtype, "auto"});
      const Activations a(tiny.d, shard_of(tiny.d, {}), *backend, {13, 5});
      const LayerScratch layer = a.layer(13), tail = a.tail(5);
      const std::vector<std::vector<Tensor>> together{
          {layer.residual, layer.normed, a.qkv(13), a.q(13)},
          {layer.residual, layer.attended, a.qkv(13), a.q(13)},
          {layer.residual, layer.normed, layer.inner},
          {layer.residual, layer.attended, tail.residual, tail.attended, tail.inner, a.logits(5)},
          {layer.residual, layer.attended, tail.residual, tail.normed, tail.inner, a.logits(5)}};
      for (const auto& set : together) {
        for (std::size_t i = 0; i < set.size(); ++i) {
          CHECK(bytes(set[i]).second <= bytes(layer.residual).first + a.bytes());
          for (std::size_t j = 0; j < i; ++j)
            CHECK((bytes(set[i]).second <= bytes(set[j]).first || bytes(set[j]).second <= bytes(set[i]).first));
        }
      }
    }
  }
}

TEST_CASE("no matrices of a mixture share a byte that are needed at the same time") {
  const TinyModel tiny = mixture();
  const auto backend = make_cpu_backend({1, DType::bf16, "auto"});
  const Activations a(tiny.d, shard_of(tiny.d, {}), *backend, {13, 5});
  const LayerScratch layer = a.layer(13);
  const MixtureScratch x = a.mixture(13);
  const std::vector<std::vector<Tensor>> together{
      {layer.residual, layer.normed, x.normed, x.logits, x.routing.experts, x.routing.shares},
      {layer.residual, layer.normed, x.routing.experts, x.routing.shares, x.gathered, x.inner},
      {layer.residual, layer.normed, x.routing.shares, x.shared}};
  for (const auto& set : together)
    for (std::size_t i = 0; i < set.size(); ++i)
      for (std::size_t j = 0; j < i; ++j) {
        const auto *left = static_cast<const std::byte*>(set[i].data),
                   *right = static_cast<const std::byte*>(set[j].data);
        CHECK((left + bytes_of(set[i].dtype, set[i].rows * set[i].cols) <= right ||
               right + bytes_of(set[j].dtype, set[j].rows * set[j].cols) <= left));
      }
}

/// A device without mixtures and sinks.
class NoMixtures final : public ForwardingBackend {
 public:
  using ForwardingBackend::ForwardingBackend;
  bool serves_mixtures() const noexcept override { return false; }
  bool serves_sinks() const noexcept override { return false; }
};

TEST_CASE("a device that serves no sinks refuses a model that has them") {
  const auto backend = make_cpu_backend({1, DType::f32, "auto"});
  NoMixtures device(*backend);
  CHECK_THROWS_WITH_AS(plan_model_memory(sinks().d, device, 16, 8, 8), doctest::Contains("attention sinks"),
                       Unsupported);
}

TEST_CASE("sinks of another length, and missing biases of experts, are named with what is expected") {
  const auto backend = make_cpu_backend({1, DType::f32, "auto"});
  const auto refused = [&](const TinyModel& tiny, const char* name, bool shorter, const char* message) {
    WeightMap weights;
    for (const auto& [key, tensor] : tiny.weights.tensors()) {
      HostTensor changed = tensor;
      if (key == name) {
        if (!shorter) continue;
        changed.shape[0] -= 1;
        changed.data = changed.data.first(changed.data.size() - 4);
      }
      weights.add(key, changed);
    }
    CHECK_THROWS_WITH_AS(Model(tiny.d, weights, *backend, 4, 4), doctest::Contains(message), Corrupt);
  };
  refused(sinks(), "layers.1.attn.sinks.weight", true, "layers.1.attn.sinks.weight has shape [3]; the model");
  refused(biased_mixture(), "layers.2.mlp.experts.4.up.bias", false, "layers.2.mlp.experts.4.up.bias is missing");
  refused(biased_mixture(), "layers.0.mlp.router.bias", false, "layers.0.mlp.router.bias is missing");
}

TEST_CASE("a device that serves no mixtures says so before anything is loaded") {
  const auto backend = make_cpu_backend({1, DType::f32, "auto"});
  const NoMixtures without(*backend);
  CHECK_THROWS_WITH_AS(plan_model_memory(mixture().d, without, 16, 8, 8),
                       "a mixture of 5 experts is not served on this device yet; use device cpu", Unsupported);
  CHECK_NOTHROW(plan_model_memory(llama().d, without, 16, 8, 8));
}

TEST_CASE("an expert that is missing is named") {
  const auto backend = make_cpu_backend({1, DType::f32, "auto"});
  const TinyModel tiny = mixture();
  for (const char* name : {"layers.2.mlp.experts.4.down.weight", "layers.0.mlp.router.weight",
                           "layers.0.mlp.shared_gate.weight", "layers.2.mlp.shared.up.weight"}) {
    Altered source(tiny.weights);
    REQUIRE(source.tensors.erase(name) == 1);
    CHECK_THROWS_WITH_AS(load(tiny, source, *backend),
                         doctest::Contains(("tensor " + std::string(name) + " is missing").c_str()), Corrupt);
  }
}

TEST_CASE("tied embeddings are held once") {
  const auto backend = make_cpu_backend({1, DType::bf16, "auto"});
  ModelDescription d = llama().d;
  const std::size_t untied = plan_model_memory(d, *backend, 16, 8, 8).weights;
  d.tied_embeddings = true;
  CHECK(untied - plan_model_memory(d, *backend, 16, 8, 8).weights ==
        backend->packed_bytes(d.vocab_size, d.hidden_size, PackKind::stacked));
}

// rule: model.tensors-are-named
TEST_CASE("a tensor that is missing or misshapen is named, with both shapes") {
  const auto backend = make_cpu_backend({1, DType::f32, "auto"});
  const TinyModel tiny = qwen3();
  SUBCASE("missing") {
    for (const auto& [name, tensor] : tiny.weights.tensors()) {
      Altered source(tiny.weights);
      source.tensors.erase(name);
      CHECK_THROWS_WITH_AS(load(tiny, source, *backend), doctest::Contains(("tensor " + name + " is missing").c_str()),
                           Corrupt);
    }
  }
  SUBCASE("another shape") {
    for (const auto& [name, tensor] : tiny.weights.tensors()) {
      Altered source(tiny.weights);
      ++source.tensors[name].shape[0];
      CHECK_THROWS_WITH_AS(load(tiny, source, *backend), doctest::Contains(("tensor " + name + " has shape").c_str()),
                           Corrupt);
    }
    Altered source(tiny.weights);
    source.tensors["layers.1.attn.k.weight"].shape[0] = 33;
    CHECK_THROWS_WITH_AS(load(tiny, source, *backend),
                         "tensor layers.1.attn.k.weight has shape [33, 40]; the model description asks for [32, 40]",
                         Corrupt);
  }
  SUBCASE("another rank") {
    Altered source(tiny.weights);
    source.tensors["final_norm.weight"].rank = 2;
    source.tensors["final_norm.weight"].shape[1] = 1;
    CHECK_THROWS_AS(load(tiny, source, *backend), Corrupt);
  }
  SUBCASE("fewer bytes than its shape") {
    Altered source(tiny.weights);
    HostTensor& tensor = source.tensors["layers.0.mlp.down.weight"];
    tensor.data = tensor.data.first(tensor.data.size() - 4);
    CHECK_THROWS_WITH_AS(load(tiny, source, *backend), doctest::Contains("layers.0.mlp.down.weight"), Corrupt);
  }
  SUBCASE("an element type whose blocks do not fit") {
    Altered source(tiny.weights);
    source.tensors["layers.0.mlp.down.weight"].dtype = DType::q4_k;
    CHECK_THROWS_AS(load(tiny, source, *backend), Error);
  }
}

TEST_CASE("extra tensors are fine, half of a stacked bias is not") {
  const auto backend = make_cpu_backend({1, DType::f32, "auto"});
  const TinyModel tiny = llama();
  Altered source(tiny.weights);
  source.tensors["rotary.cache"] = source.tensors["final_norm.weight"];
  load(tiny, source, *backend);
  source.tensors["layers.2.mlp.up.bias"] = source.tensors["final_norm.weight"];  // of another length
  CHECK_THROWS_WITH_AS(load(tiny, source, *backend), doctest::Contains("layers.2.mlp.up.bias"), Corrupt);
}

TEST_CASE("a model refuses impossible sizes") {
  const auto backend = make_cpu_backend({1, DType::f32, "auto"});
  const TinyModel tiny = llama();
  CHECK_THROWS_AS(Model(tiny.d, tiny.weights, *backend, 0, 1), InvalidArgument);
  CHECK_THROWS_AS(Model(tiny.d, tiny.weights, *backend, 1, 0), InvalidArgument);
  CHECK_THROWS_AS(Model(tiny.d, tiny.weights, *backend, 0x80000000u, 1), InvalidArgument);
  ModelDescription d = tiny.d;
  d.num_layers = 0;
  CHECK_THROWS_AS(Model(d, tiny.weights, *backend, 1, 1), InvalidArgument);
}

TEST_CASE("the weight map keeps each name once") {
  const TinyModel tiny = llama();
  WeightMap map;
  map.add("a", tiny.weights.get("embed.weight"));
  CHECK_THROWS_AS(map.add("a", tiny.weights.get("embed.weight")), InvalidArgument);
  CHECK(map.size() == 1);
  CHECK(map.has("a"));
  CHECK_THROWS_WITH_AS(map.get("b"), "tensor b is missing", Corrupt);
}
