#include <doctest/doctest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <numeric>
#include <vector>

#include "pagedcore/container_text.hpp"
#include "pagedcore/error.hpp"
#include "pagedcore/model.hpp"
#include "safetensors_bytes.hpp"

using namespace pagedcore;
namespace fs = std::filesystem;

namespace {

struct Folder {
  fs::path path;
  Folder() {
    std::string pattern = (fs::temp_directory_path() / "pagedcore_io_XXXXXX").string();
    REQUIRE(::mkdtemp(pattern.data()) != nullptr);
    path = pattern;
  }
  ~Folder() {
    std::error_code ignored;
    fs::remove_all(path, ignored);
  }
  std::string operator/(const char* name) const { return (path / name).string(); }
  std::size_t files() const {
    return static_cast<std::size_t>(std::distance(fs::directory_iterator(path), fs::directory_iterator()));
  }
};

void write_file(const std::string& path, std::span<const std::byte> bytes) {
  std::ofstream(path, std::ios::binary).write(reinterpret_cast<const char*>(bytes.data()), std::ssize(bytes));
}

ModelDescription small_description() {
  ModelDescription d;
  d.architecture = "LlamaForCausalLM";
  d.vocab_size = 32;
  d.hidden_size = 32;
  d.mlp.intermediate_size = 64;
  d.num_layers = 1;
  d.attention.num_heads = 2;
  d.attention.num_kv_heads = 1;
  d.attention.head_dim = 16;
  d.max_context = 128;
  d.tied_embeddings = true;
  d.norm.eps = 1e-6f;
  d.position.rope_inv_freq = {1.0f, 0.1f, 0.3333333f, 1e-3f, 1e-4f, 1e-5f, 1e-6f, 1e-7f};
  d.attention.windows = {0};
  return d;
}

struct SmallWeights {
  std::vector<float> numbers = std::vector<float>(32 * 32);
  std::vector<std::uint8_t> blocks = std::vector<std::uint8_t>(64 * 20);
  WeightMap map;
  SmallWeights() {
    std::iota(numbers.begin(), numbers.end(), 0.5f);
    std::iota(blocks.begin(), blocks.end(), std::uint8_t{3});
    map.add("embed.weight", {DType::f32, {32, 32}, 2, std::as_bytes(std::span(numbers))});
    map.add("layers.0.mlp.gate.weight", {DType::q4_1, {64, 32}, 2, std::as_bytes(std::span(blocks))});
  }
};

bool same_bytes(std::span<const std::byte> a, std::span<const std::byte> b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size()) == 0;
}

std::vector<std::byte> bytes_of_tensor(const HostTensor& tensor) {
  std::vector<std::byte> bytes(tensor.size_bytes());
  read_bytes(tensor, 0, bytes);
  return bytes;
}

}  // namespace

// rule: io.save-then-open
TEST_CASE("what is saved is read back: tensors, description, metadata") {
  const Folder folder;
  const std::string path = folder / "model.safetensors";
  const SmallWeights weights;
  const ModelDescription description = small_description();
  save_model(path, description, weights.map, {{"name", "small \"model\"\n"}});
  CHECK(folder.files() == 1);

  const ModelFile file(path);
  CHECK(file.names() == std::vector<std::string>{"embed.weight", "layers.0.mlp.gate.weight"});
  CHECK(file.has("embed.weight"));
  CHECK_FALSE(file.has("lm_head.weight"));
  const ModelFile mapped(path, true);
  CHECK(file.metadata().at("name") == "small \"model\"\n");
  for (const auto& entry : weights.map.tensors()) {
    const HostTensor& saved = entry.second;
    const HostTensor read = file.get(entry.first);
    CHECK(read.dtype == saved.dtype);
    CHECK(read.rank == saved.rank);
    CHECK(read.shape == saved.shape);
    CHECK(read.data.empty());  // it is still in the file
    CHECK(same_bytes(bytes_of_tensor(read), saved.data));
    CHECK(same_bytes(mapped.get(entry.first).data, saved.data));
  }
  CHECK(file.description().to_text() == description.to_text());
  CHECK(file.description().position.rope_inv_freq == description.position.rope_inv_freq);
  CHECK_THROWS_WITH_AS(file.get("nothing"), doctest::Contains((path + ": has no tensor 'nothing'").c_str()), Corrupt);
}

TEST_CASE("what a container says about text is a struct") {
  const Folder folder;
  const SmallWeights weights;
  const std::string path = folder / "model.safetensors", bare = folder / "bare.safetensors";
  save_model(path, small_description(), weights.map,
             {{"tokenizer.json", "{\"version\":\"1.0\"}"},
              {"chat_template", "{{ messages }}\n"},
              {"eos_token_ids", "2,7"},
              {"bos_token_id", "1"}});
  const ContainerText text = text_of(ModelFile(path));
  CHECK(text.tokenizer == "{\"version\":\"1.0\"}");
  CHECK(text.chat_template == "{{ messages }}\n");
  CHECK(text.eos_token_ids == std::vector<std::int32_t>{2, 7});
  CHECK(text.bos_token_id == 1);

  save_model(bare, small_description(), weights.map, {});
  const ContainerText none = text_of(ModelFile(bare));
  CHECK((none.tokenizer.empty() && none.chat_template.empty() && none.eos_token_ids.empty()));
  CHECK(none.bos_token_id == -1);
  for (const char* wrong : {"x", "1,2", "99999999999", ""}) {
    save_model(bare, small_description(), weights.map, {{"bos_token_id", wrong}});
    CHECK_THROWS_WITH_AS(text_of(ModelFile(bare)), doctest::Contains("bos_token_id"), Corrupt);
  }
}

// rule: io.refusal-is-io
TEST_CASE("the operating system's refusals are Io") {
  const Folder folder;
  CHECK_THROWS_WITH_AS(ModelFile(folder / "missing"), doctest::Contains("missing: cannot be opened: No such file"), Io);
  CHECK_THROWS_AS(ModelFile(folder.path.string()), Io);
  write_file(folder / "empty", {});
  CHECK_THROWS_WITH_AS(ModelFile(folder / "empty"), doctest::Contains("is empty"), Io);
  REQUIRE(::mkfifo((folder / "pipe").c_str(), 0600) == 0);
  CHECK_THROWS_WITH_AS(ModelFile(folder / "pipe"), doctest::Contains("not a regular file"), Io);
  if (::geteuid() != 0) {  // root may read everything
    write_file(folder / "secret", test::safetensors_bytes("{}", ""));
    REQUIRE(::chmod((folder / "secret").c_str(), 0) == 0);
    CHECK_THROWS_AS(ModelFile(folder / "secret"), Io);
  }

  const SmallWeights weights;
  CHECK_THROWS_AS(save_model(folder / "no/such/folder", small_description(), weights.map, {}), Io);
  fs::create_directory(folder / "directory");
  CHECK_THROWS_AS(save_model(folder / "directory", small_description(), weights.map, {}), Io);
  CHECK_FALSE(fs::exists(folder / "no"));
  const auto before = folder.files();
  CHECK_THROWS_AS(save_model(folder / "directory", small_description(), weights.map, {}), Io);
  CHECK_THROWS_WITH_AS(save_model(folder / "pipe", small_description(), weights.map, {}),
                       doctest::Contains("neither a regular file nor a link"), Io);
  CHECK(fs::is_fifo(fs::path(folder / "pipe")));
  CHECK(folder.files() == before);  // the temporary file is gone
}

// rule: io.file-is-whole-or-absent
TEST_CASE("a save that fails leaves the old file as it was") {
  const Folder folder;
  const std::string path = folder / "model.safetensors";
  const SmallWeights weights;
  save_model(path, small_description(), weights.map, {});
  const auto size = fs::file_size(path);
  CHECK_THROWS_AS(save_model(path, small_description(), weights.map, {{"format", "x"}}), InvalidArgument);
  CHECK_THROWS_AS(save_model(path, small_description(), weights.map, {{"dtype:a", "q4_0"}}), InvalidArgument);
  CHECK_THROWS_AS(save_model(path, small_description(), weights.map, {{"a", "\xff"}}), InvalidArgument);
  {
    // A disk that fills up: files of this process may not grow past 4 KiB, and the signal is ignored.
    struct rlimit old {};
    REQUIRE(::getrlimit(RLIMIT_FSIZE, &old) == 0);
    auto* handler = std::signal(SIGXFSZ, SIG_IGN);
    const struct rlimit small { 4096, old.rlim_max };
    REQUIRE(::setrlimit(RLIMIT_FSIZE, &small) == 0);
    CHECK_THROWS_WITH_AS(save_model(path, small_description(), weights.map, {{"more", std::string(5000, 'x')}}),
                         doctest::Contains("cannot be written"), Io);
    ::setrlimit(RLIMIT_FSIZE, &old);
    std::signal(SIGXFSZ, handler);
  }
  CHECK(fs::file_size(path) == size);
  CHECK(folder.files() == 1);
}

TEST_CASE("a file can be replaced while it is open") {
  const Folder folder;
  const std::string path = folder / "model.safetensors";
  const SmallWeights weights;
  save_model(path, small_description(), weights.map, {});
  const ModelFile before(path);
  save_model(path, small_description(), WeightMap(), {});
  CHECK(same_bytes(bytes_of_tensor(before.get("embed.weight")), std::as_bytes(std::span(weights.numbers))));
  CHECK(ModelFile(path).names().empty());
}

// rule: io.changed-is-io
TEST_CASE("a file that is shortened or written to while it is open is one Io error") {
  const Folder folder;
  const std::string path = folder / "model.safetensors", copy = folder / "copy.safetensors";
  const SmallWeights weights;
  save_model(path, small_description(), weights.map, {});
  const auto size = fs::file_size(path);
  for (const std::uintmax_t left : {std::uintmax_t{0}, size - 1, size / 2}) {
    fs::copy_file(path, copy, fs::copy_options::overwrite_existing);
    const ModelFile file(copy);
    const HostTensor tensor = file.get("layers.0.mlp.gate.weight");
    fs::resize_file(copy, left);
    std::vector<float> numbers(64 * 32);
    CHECK_THROWS_WITH_AS(to_f32(tensor, 0, numbers), doctest::Contains("copy.safetensors: was changed while"), Io);
    // The same for a new file that takes the weights from this one: no file is left behind.
    WeightMap map;
    map.add("embed.weight", tensor);
    CHECK_THROWS_AS(save_model(folder / "new.safetensors", small_description(), map, {}), Io);
    CHECK(folder.files() == 2);
  }
  // As long as before, but with other bytes: half of a tensor would be old and half new.
  fs::copy_file(path, copy, fs::copy_options::overwrite_existing);
  const ModelFile file(copy);
  fs::last_write_time(copy, fs::last_write_time(copy) + std::chrono::seconds(1));
  CHECK_THROWS_WITH_AS(bytes_of_tensor(file.get("embed.weight")), doctest::Contains("was changed"), Io);
}

TEST_CASE("a tensor of a file is converted like one in memory, in whatever pieces") {
  const Folder folder;
  std::vector<std::uint8_t> blocks(20 *
                                   5000);  // q4_1: 20 bytes for 32 elements; several pieces, and an uneven last one
  std::iota(blocks.begin(), blocks.end(), std::uint8_t{1});
  for (std::size_t i = 1; i < blocks.size(); i += 2) blocks[i] &= 0x3b;  // finite scales
  const HostTensor tensor{DType::q4_1, {5000, 32}, 2, std::as_bytes(std::span(blocks))};
  WeightMap map;
  map.add("t", tensor);
  save_model(folder / "c", small_description(), map, {});
  const ModelFile file(folder / "c");
  std::vector<float> expected(5000 * 32), found(expected.size());
  to_f32(tensor, 0, expected);
  to_f32(file.get("t"), 0, found);
  CHECK(found == expected);
  std::vector<float> part(96);
  to_f32(file.get("t"), 320, part);
  CHECK(std::equal(part.begin(), part.end(), expected.begin() + 320));
}

TEST_CASE("a plain safetensors file has tensors but no description") {
  const Folder folder;
  write_file(folder / "plain",
             test::safetensors_bytes("{\"t\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]}}", "ab"));
  const ModelFile file(folder / "plain");
  CHECK(bytes_of_tensor(file.get("t"))[1] == std::byte{'b'});
  CHECK_THROWS_WITH_AS(file.description(), doctest::Contains("plain safetensors file"), Corrupt);
}

TEST_CASE("an invalid description is Corrupt and names the file") {
  const Folder folder;
  write_file(folder / "c",
             test::safetensors_bytes(R"({"__metadata__":{"format":"pagedcore","description:num_layers":"many"}})", ""));
  CHECK_THROWS_WITH_AS(ModelFile(folder / "c").description(), doctest::Contains("description is invalid"), Corrupt);
}

// rule: io.contradiction-is-corrupt
TEST_CASE("a truncated file is Corrupt at every length") {
  const Folder folder;
  const SmallWeights weights;
  save_model(folder / "whole", small_description(), weights.map, {});
  std::vector<char> bytes(fs::file_size(folder / "whole"));
  std::ifstream(folder / "whole", std::ios::binary).read(bytes.data(), std::ssize(bytes));
  for (std::size_t size = 1; size < bytes.size(); size += 97) {
    write_file(folder / "cut", std::as_bytes(std::span(bytes).first(size)));
    INFO(size);
    CHECK_THROWS_AS(ModelFile(folder / "cut"), Corrupt);
  }
}
