#include "seeds.hpp"

#include <span>
#include <string>

#include "io/safetensors.hpp"
#include "pagedcore/model.hpp"

namespace pagedcore::fuzz {
namespace {

Bytes bytes_of_text(const std::string& text) {
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

ModelDescription small_description() {
  ModelDescription d;
  d.architecture = "LlamaForCausalLM";
  d.vocab_size = 64;
  d.hidden_size = 32;
  d.mlp.intermediate_size = 64;
  d.num_layers = 2;
  d.attention.num_heads = 4;
  d.attention.num_kv_heads = 2;
  d.attention.head_dim = 8;
  d.max_context = 128;
  d.position.rope_inv_freq = {1.0f, 0.1f, 0.01f, 0.001f};
  d.attention.windows = {0, 16};
  return d;
}

}  // namespace

std::vector<Bytes> safetensors_seeds() {
  const std::string data(4096, 'w');
  const auto tensor = [&](DType dtype, std::int64_t rows, std::int64_t cols) {
    return HostTensor{dtype, {rows, cols}, 2, std::as_bytes(std::span(data)).first(bytes_of(dtype, rows * cols))};
  };
  const auto file = [](const io::TensorMap& tensors, const io::Metadata& metadata) {
    const io::ContainerLayout layout = io::lay_out_container(tensors, metadata);
    Bytes bytes = bytes_of_text(layout.header);
    for (const HostTensor* t : layout.in_order) bytes.insert(bytes.end(), t->data.begin(), t->data.end());
    return bytes;
  };
  io::Metadata container{{std::string(io::format_key), std::string(io::container_format)}};
  for (const auto& [field, value] : small_description().to_text()) {
    container[std::string(io::description_prefix) + field] = value;
  }
  return {
      file({}, {}),
      file({{"a", tensor(DType::f32, 2, 3)}, {"b", tensor(DType::bf16, 4, 4)}, {"c", tensor(DType::boolean, 1, 5)}},
           {{"format", "pt"}}),
      file({{"embed.weight", tensor(DType::q4_1, 4, 64)},
            {"x", tensor(DType::q6_k, 1, 256)},
            {"y", tensor(DType::f64, 2, 2)}},
           container),
  };
}

std::vector<Bytes> json_seeds() {
  std::vector<Bytes> seeds;
  for (const char* text :
       {R"({"a":[1,2,18446744073709551615],"b":{"c":"d\n\u00e9\ud83d\ude00","e":[]},"f":{}})", R"([[[[0]]]])",
        R"("text")", "{\"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\":\"\"}", "[\n 1 ,\t2\r]"}) {
    seeds.push_back(bytes_of_text(text));
  }
  return seeds;
}

std::vector<Bytes> description_seeds() {
  std::string lines;
  for (const auto& [field, value] : small_description().to_text()) lines += field + "=" + value + "\n";
  return {bytes_of_text(lines)};
}

}  // namespace pagedcore::fuzz
