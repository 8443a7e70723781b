#include <doctest/doctest.h>

#include <iterator>
#include <span>
#include <string>

#include "io/safetensors.hpp"
#include "pagedcore/error.hpp"
#include "safetensors_bytes.hpp"

using namespace pagedcore;
using test::safetensors_bytes;

namespace {

// One tensor "t" of 8 bytes of data.
std::string one(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return R"({"t":{"dtype":")" + dtype + R"(","shape":)" + shape + R"(,"data_offsets":)" + offsets + "}}";
}

io::Safetensors read(std::span<const std::byte> bytes) {
  return io::read_safetensors({DType::u8, {std::ssize(bytes)}, 1, bytes}, "file");
}

template <class Exception>
void refuses(const std::string& header, const std::string& data, const std::string& message) {
  const auto bytes = safetensors_bytes(header, data);
  INFO(header);
  CHECK_THROWS_WITH_AS(read(bytes), doctest::Contains(message.c_str()), Exception);
  CHECK_THROWS_WITH_AS(read(bytes), doctest::Contains("file: "), Exception);
}

const std::string eight = "12345678";

}  // namespace

TEST_CASE("tensors, metadata and padding are read") {
  const auto bytes = safetensors_bytes(
      R"({"__metadata__":{"format":"pt"},"b":{"dtype":"F32","shape":[],"data_offsets":[4,8]},)"
      R"("a":{"dtype":"BF16","shape":[1,2],"data_offsets":[0,4]},"z":{"data_offsets":[8,8],"shape":[0,3],"dtype":"I64"}}  )",
      eight);
  const io::Safetensors contents = read(bytes);
  REQUIRE(contents.tensors.size() == 3);
  CHECK(contents.metadata == io::Metadata{{"format", "pt"}});
  const HostTensor& a = contents.tensors.at("a");
  CHECK(a.dtype == DType::bf16);
  CHECK(a.rank == 2);
  CHECK(a.rows() == 1);
  CHECK(a.cols() == 2);
  CHECK(a.data.data() == bytes.data() + bytes.size() - 8);
  CHECK(a.data.size() == 4);
  CHECK(contents.tensors.at("b").rank == 0);
  CHECK(contents.tensors.at("b").data.size() == 4);
  CHECK(contents.tensors.at("z").data.empty());
}

TEST_CASE("an empty header is a file without tensors") { CHECK(read(safetensors_bytes("{}", "")).tensors.empty()); }

TEST_CASE("every element type of the format that we know") {
  for (const auto& [name, dtype] : {std::pair{"F64", DType::f64}, {"I64", DType::i64}}) {
    CHECK(read(safetensors_bytes(one(name, "[1]", "[0,8]"), eight)).tensors.at("t").dtype == dtype);
  }
  for (const auto& [name, dtype] : {std::pair{"F32", DType::f32}, {"I32", DType::i32}}) {
    CHECK(read(safetensors_bytes(one(name, "[2]", "[0,8]"), eight)).tensors.at("t").dtype == dtype);
  }
  for (const auto& [name, dtype] : {std::pair{"F16", DType::f16}, {"BF16", DType::bf16}, {"I16", DType::i16}}) {
    CHECK(read(safetensors_bytes(one(name, "[4]", "[0,8]"), eight)).tensors.at("t").dtype == dtype);
  }
  for (const auto& [name, dtype] : {std::pair{"I8", DType::i8}, {"U8", DType::u8}, {"BOOL", DType::boolean}}) {
    CHECK(read(safetensors_bytes(one(name, "[8]", "[0,8]"), eight)).tensors.at("t").dtype == dtype);
  }
}

TEST_CASE("lengths that contradict the file") {
  const auto refuses_bytes = [](const std::vector<std::byte>& bytes) { CHECK_THROWS_AS(read(bytes), Corrupt); };
  refuses_bytes({});
  refuses_bytes(std::vector<std::byte>(7));
  refuses_bytes(std::vector<std::byte>(8));  // a header of 0 bytes
  refuses_bytes(safetensors_bytes("{}", "", 3));
  refuses_bytes(safetensors_bytes("{}", "", 1));
  refuses_bytes(safetensors_bytes("{}", "", std::int64_t{1} << 62));
  std::vector<std::byte> all_ones(64, std::byte{0xff});
  refuses_bytes(all_ones);
}

// rule: io.tensor-is-sound, io.contradiction-is-corrupt
TEST_CASE("offsets, sizes and shapes that contradict each other") {
  refuses<Corrupt>(one("F32", "[2]", "[0,9]"), eight, "data_offsets [0, 9] in 8 bytes");
  refuses<Corrupt>(one("F32", "[2]", "[8,0]"), eight, "data_offsets [8, 0]");
  refuses<Corrupt>(one("F32", "[2]", "[0,18446744073709551615]"), eight, "18446744073709551615");
  refuses<Corrupt>(one("F32", "[3]", "[0,8]"), eight, "takes 12 bytes");
  refuses<Corrupt>(one("F32", "[2]", "[0]"), eight, "has 1 data_offsets");
  refuses<Corrupt>(one("F32", "[2]", "[0,8,8]"), eight, "has 3 data_offsets");
  refuses<Corrupt>(one("F32", "[4294967296,4294967296]", "[0,8]"), eight, "overflows");
  refuses<Corrupt>(one("F32", "[9223372036854775808]", "[0,8]"), eight, "overflows");
  refuses<Corrupt>(one("F32", "[0,18446744073709551615]", "[0,0]"), "", "overflows");
  refuses<Corrupt>(one("F32", "[0,4294967296,4294967296]", "[0,0]"), "", "overflows");
  refuses<Unsupported>(one("F32", "[1,1,1,1,2]", "[0,8]"), eight, "tensor 't' has 5 dimensions");
  refuses<Unsupported>(one("F8_E5M2", "[8]", "[0,8]"), eight, "'F8_E5M2'; supported are F64, F32");
}

TEST_CASE("headers of another layout") {
  refuses<Corrupt>("[]", "", "'{' is expected");
  refuses<Corrupt>("{} x", "", "more follows");
  refuses<Corrupt>(R"({"t":{"dtype":"U8","shape":[8]}})", eight, "lacks dtype, shape or data_offsets");
  refuses<Corrupt>(R"({"t":{"dtype":"U8","shape":[8],"data_offsets":[0,8],"x":1}})", eight, "unknown property 'x'");
  refuses<Corrupt>(R"({"t":{"dtype":"U8","dtype":"U8","shape":[8],"data_offsets":[0,8]}})", eight, "repeated");
  refuses<Corrupt>(R"({"__metadata__":{"a":1}})", "", "'\"' is expected");
  const std::string entry = R"("t":{"dtype":"U8","shape":[8],"data_offsets":[0,8]})";
  refuses<Corrupt>("{" + entry + "," + entry + "}", eight, "'t' is repeated");
}

// rule: io.tensor-is-sound
TEST_CASE("overlaps, holes and left-over bytes") {
  const auto two = [](const std::string& first, const std::string& second, int size_a, int size_b) {
    return R"({"a":{"dtype":"U8","shape":[)" + std::to_string(size_a) + R"(],"data_offsets":)" + first +
           R"(},"b":{"dtype":"U8","shape":[)" + std::to_string(size_b) + R"(],"data_offsets":)" + second + "}}";
  };
  CHECK_NOTHROW(read(safetensors_bytes(two("[4,8]", "[0,4]", 4, 4), eight)));
  refuses<Corrupt>(two("[0,5]", "[4,8]", 5, 4), eight, "tensor 'b' begins at 4, inside the one that ends at 5");
  refuses<Corrupt>(two("[0,8]", "[0,8]", 8, 8), eight, "inside the one");
  refuses<Corrupt>(two("[0,3]", "[4,8]", 3, 4), eight, "bytes 3 to 4 before tensor 'b'");
  refuses<Corrupt>(two("[0,4]", "[4,7]", 4, 3), eight, "end at byte 7 of 8");
}

namespace {

std::string container(const std::string& metadata, const std::string& shape = "[18]") {
  return R"({"__metadata__":{)" + metadata + R"(},"t":{"dtype":"U8","shape":)" + shape + R"(,"data_offsets":[0,18]}})";
}

const std::string block(18, 'x');

}  // namespace

TEST_CASE("block formats of a container") {
  const std::string good = R"("format":"pagedcore","dtype:t":"q4_0","shape:t":"1,32")";
  const auto bytes = safetensors_bytes(container(good), block);
  const HostTensor tensor = read(bytes).tensors.at("t");
  CHECK(tensor.dtype == DType::q4_0);
  CHECK(tensor.rank == 2);
  CHECK(tensor.cols() == 32);
  CHECK(tensor.data.size() == 18);

  // Elsewhere these keys mean nothing.
  const auto plain = safetensors_bytes(container(R"("dtype:t":"q4_0","shape:t":"1,32")"), block);
  CHECK(read(plain).tensors.at("t").dtype == DType::u8);

  const auto with = [](const std::string& rest) { return container(R"("format":"pagedcore",)" + rest); };
  refuses<Corrupt>(with(R"("dtype:t":"q4_0")"), block, "has 'dtype:t' but no shape");
  refuses<Corrupt>(with(R"("shape:t":"32")"), block, "has 'shape:t' but no dtype");
  refuses<Corrupt>(with(R"("dtype:u":"q4_0","shape:u":"32")"), block, "there is no such tensor");
  refuses<Unsupported>(with(R"("dtype:t":"q9_9","shape:t":"32")"), block, "type 'q9_9'");
  refuses<Unsupported>(with(R"("dtype:t":"f32","shape:t":"32")"), block, "type 'f32'");
  refuses<Corrupt>(with(R"("dtype:t":"q4_0","shape:t":"64")"), block, "takes 36 bytes, but has 18");
  refuses<Corrupt>(with(R"("dtype:t":"q4_0","shape:t":"2,16")"), block, "rows of 16 elements");
  refuses<Corrupt>(with(R"("dtype:t":"q4_0","shape:t":"4294967296,4294967296,32")"), block, "overflows");
  for (const char* shape : {"", ",", "32,", ",32", "3 2", "-32", "[32]", "99999999999999999999"}) {
    refuses<Corrupt>(with(R"("dtype:t":"q4_0","shape:t":")" + std::string(shape) + "\""), block, "shape");
  }
  refuses<Corrupt>(container(good, "[3,6]"), block, "not stored as bytes");
}

TEST_CASE("a container's tensors are aligned to their element types") {
  const std::string data(1024, '\0');
  const auto bytes = std::as_bytes(std::span(data));
  const auto tensor = [&](DType dtype, std::int64_t count) {
    HostTensor t;
    t.dtype = dtype;
    t.shape = {count};
    t.rank = 1;
    t.data = bytes.first(bytes_of(dtype, count));
    return t;
  };
  const io::TensorMap tensors{{"a", tensor(DType::u8, 3)},    {"b", tensor(DType::f32, 5)},
                              {"c", tensor(DType::f64, 3)},   {"d", tensor(DType::bf16, 7)},
                              {"e", tensor(DType::q4_0, 32)}, {"f\"\n", tensor(DType::q6_k, 256)}};
  const io::ContainerLayout layout = io::lay_out_container(tensors, {{"format", "pagedcore"}});
  CHECK(layout.header.size() % io::data_alignment == 0);
  std::string file = layout.header;
  for (const HostTensor* t : layout.in_order)
    file.append(reinterpret_cast<const char*>(t->data.data()), t->data.size());
  const auto contents = read(std::as_bytes(std::span(file)));
  REQUIRE(contents.tensors.size() == tensors.size());
  for (const auto& entry : contents.tensors) {
    const std::string& name = entry.first;
    const HostTensor& t = entry.second;
    INFO(name);
    CHECK(t.dtype == tensors.at(name).dtype);
    CHECK(t.cols() == tensors.at(name).cols());
    const auto offset = static_cast<std::size_t>(t.data.data() - reinterpret_cast<const std::byte*>(file.data()));
    if (info(t.dtype).block_elements == 1) CHECK(offset % info(t.dtype).block_bytes == 0);
  }

  HostTensor wrong = tensor(DType::f32, 4);
  wrong.shape = {5};
  CHECK_THROWS_AS(io::lay_out_container({{"w", wrong}}, {}), InvalidArgument);
  CHECK_THROWS_AS(io::lay_out_container({{"\xff", tensor(DType::u8, 1)}}, {}), InvalidArgument);
  CHECK_THROWS_AS(io::lay_out_container({{"__metadata__", tensor(DType::u8, 1)}}, {}), InvalidArgument);
}
