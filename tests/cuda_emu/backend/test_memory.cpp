// Bytes to, from and on the device: uploads, rows, copies of blocks, swaps.
#include <algorithm>
#include <limits>

#include "harness.hpp"

using namespace cuda_test;

namespace {

KvShape kv_shape() { return {2, 2, 64, 16, DType::bf16}; }

std::vector<std::byte> pattern(std::size_t bytes, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<std::byte> out(bytes);
  for (std::byte& b : out) b = static_cast<std::byte>(random());
  return out;
}

/// Blocks filled with patterns by swapping them in; block i has pattern(i).
struct Storage {
  explicit Storage(Backend& b, std::uint32_t blocks) : backend(b), kv(b.allocate_kv(kv_shape(), blocks)) {
    for (std::uint32_t i = 0; i < blocks; ++i) put(i, i);
  }
  void put(std::uint32_t block, unsigned seed) {
    const std::vector<std::byte> bytes = pattern(kv->block_bytes(), seed);
    const BlockId id{block};
    const std::byte* src = bytes.data();
    backend.swap_in(*kv, {&id, 1}, {&src, 1});
    backend.synchronize();
  }
  std::vector<std::byte> get(std::uint32_t block) {
    std::vector<std::byte> bytes(kv->block_bytes());
    const BlockId id{block};
    std::byte* dst = bytes.data();
    backend.swap_out(*kv, {&id, 1}, {&dst, 1});
    backend.synchronize();
    return bytes;
  }
  Backend& backend;
  std::unique_ptr<KvStorage> kv;
};

}  // namespace

TEST_CASE("buffers are aligned and zeroed, and give their memory back") {
  {
    const auto backend = make();
    for (const std::int64_t count : {1, 15, 25000}) {
      const Matrix m(*backend, DType::f32, 1, count);
      CHECK(reinterpret_cast<std::uintptr_t>(m.tensor.data) % 64 == 0);
      CHECK(m.values() == std::vector<float>(static_cast<std::size_t>(count), 0.0f));
    }
    CHECK(backend->allocate(0)->bytes() == 0);
    CHECK_THROWS_AS(backend->allocate(std::numeric_limits<std::size_t>::max() / 2), OutOfMemory);
    CHECK(backend->host_view(Tensor{}) == nullptr);
  }
  CHECK(cuda_emu::device_bytes_in_use() == 0);
}

TEST_CASE("uploads larger than the staging memory, and rows with gaps") {
  const auto backend = make();
  const std::vector<float> large = random_values(5 << 20, 1);
  const Matrix all(*backend, DType::f32, 5, 1 << 20, large);
  CHECK(all.values() == large);
  const Matrix device(*backend, DType::f32, 4, 8, std::vector<float>(32, -1.0f));
  const Tensor columns = device.tensor.slice_cols(2, 3);
  const std::vector<float> sent = random_values(12, 2);
  backend->upload(columns, std::as_bytes(std::span(sent)));
  std::vector<float> received(12);
  backend->download(std::as_writable_bytes(std::span(received)), columns);
  CHECK(received == sent);
  const std::vector<float> whole = device.values();
  CHECK(whole[10] == sent[3]);
  CHECK(std::ranges::count(whole, -1.0f) == 20);
  CHECK_THROWS_AS(backend->upload(columns, std::as_bytes(std::span(sent).first(11))), InvalidArgument);
}

TEST_CASE("host memory may change as soon as an upload returns") {
  const auto backend = make();
  Matrix m(*backend, DType::f32, 1, 1000);
  std::vector<float> values(1000, 3.0f);
  backend->upload(m.tensor, std::as_bytes(std::span(values)));
  std::ranges::fill(values, 4.0f);
  CHECK(m.values() == std::vector<float>(1000, 3.0f));
}

// rule: backend.throw-enqueues-nothing
TEST_CASE("copies of blocks: all of a step as one operation, and nothing for a bad one") {
  const auto backend = make();
  Storage s(*backend, 12);
  const std::vector<BlockCopy> copies{
      {BlockId{0}, BlockId{10}, 3}, {BlockId{5}, BlockId{1}, 16}, {BlockId{5}, BlockId{2}, 16}};
  backend->copy_blocks(*s.kv, copies);
  CHECK(s.get(10) == pattern(s.kv->block_bytes(), 0));
  CHECK(s.get(1) == pattern(s.kv->block_bytes(), 5));
  CHECK(s.get(2) == pattern(s.kv->block_bytes(), 5));
  CHECK(s.get(11) == pattern(s.kv->block_bytes(), 11));
  const std::vector<BlockCopy> bad{{BlockId{0}, BlockId{3}, 16}, {BlockId{0}, BlockId{12}, 16}};
  CHECK_THROWS_WITH_AS(backend->copy_blocks(*s.kv, bad), doctest::Contains("to block 12: the KV storage has 12"),
                       InvalidArgument);
  CHECK(s.get(3) == pattern(s.kv->block_bytes(), 3));
}

// rule: cuda.swap-beside-computation
TEST_CASE("a swap moves the blocks as they are when it is enqueued, in pieces, in any order") {
  CudaOptions options = small();
  options.workspace = 1 << 20;  // pieces of 128 KiB: 8 blocks
  const auto backend = make(options);
  Storage s(*backend, 40);
  REQUIRE(s.kv->block_bytes() == 16384);
  std::vector<BlockId> blocks;
  std::vector<std::vector<std::byte>> places;
  for (std::uint32_t i = 0; i < 20; ++i) {
    blocks.push_back(BlockId{39 - 2 * i});
    places.emplace_back(s.kv->block_bytes());
  }
  std::vector<std::byte*> dst;
  for (auto& place : places) dst.push_back(place.data());
  backend->swap_out(*s.kv, blocks, dst);
  // The same blocks change at once, while the swap is still under way.
  std::vector<BlockCopy> copies;
  for (const BlockId block : blocks) copies.push_back({BlockId{0}, block, 16});
  backend->copy_blocks(*s.kv, copies);
  backend->synchronize();
  for (std::uint32_t i = 0; i < 20; ++i) CHECK(places[i] == pattern(s.kv->block_bytes(), 39 - 2 * i));
  CHECK(s.get(39) == pattern(s.kv->block_bytes(), 0));

  std::vector<const std::byte*> src(dst.begin(), dst.end());
  backend->swap_in(*s.kv, blocks, src);
  backend->synchronize();
  for (std::uint32_t i = 0; i < 40; ++i) CHECK(s.get(i) == pattern(s.kv->block_bytes(), i));

  const BlockId outside{40};
  CHECK_THROWS_WITH_AS(backend->swap_in(*s.kv, {&outside, 1}, {src.data(), 1}),
                       doctest::Contains("swap of block 40: the KV storage has 40"), InvalidArgument);
  CHECK_THROWS_AS(backend->swap_in(*s.kv, blocks, {src.data(), 1}), InvalidArgument);
}

// rule: cuda.swap-beside-computation
TEST_CASE("a swap's memory is used by computation until then: what was enqueued before comes first") {
  // The swapper's own memory is taken at the first swap, from what the computation has just given back.
  CudaOptions options = small();
  options.workspace = 1 << 20;
  const auto backend = make(options);
  const std::size_t block = backend->kv_block_bytes(kv_shape()), bytes = std::size_t{256} << 10;
  backend->reserve(block * 8 + bytes);
  const auto kv = backend->allocate_kv(kv_shape(), 8);
  const std::vector<std::byte> values = pattern(block, 7), other = pattern(block, 8);
  std::vector<std::byte> noise = pattern(bytes, 9), got(block), got_noise(bytes);
  const std::vector<BlockId> one{BlockId{1}}, two{BlockId{2}};
  const std::byte* src = values.data();
  std::byte* dst = got.data();
  // An upload that has not happened when its buffer goes, and a swap that takes the memory.
  const auto columns = static_cast<std::int64_t>(bytes / 4);
  {
    const auto fleeting = backend->allocate(bytes);
    backend->upload({fleeting->data(), DType::f32, 1, columns, columns}, noise);
  }
  backend->swap_in(*kv, one, {&src, 1});
  backend->swap_out(*kv, one, {&dst, 1});
  backend->synchronize();
  CHECK(got == values);
  // And back: what a swap's memory is released to comes after the swap.
  const auto later = backend->allocate(bytes);
  backend->upload({later->data(), DType::f32, 1, columns, columns}, noise);
  src = other.data();
  backend->swap_in(*kv, two, {&src, 1});
  backend->download(got_noise, {later->data(), DType::f32, 1, columns, columns});
  CHECK(got_noise == noise);
  backend->swap_out(*kv, two, {&dst, 1});
  backend->synchronize();
  CHECK(got == other);
}

TEST_CASE("rows are gathered; a row outside is an error") {
  const auto backend = make();
  const std::vector<float> values = random_values(7 * 36, 4);
  const Matrix in(*backend, DType::bf16, 7, 36, values);
  Matrix out(*backend, DType::bf16, 4, 36);
  const std::vector<std::int32_t> rows{6, 0, 3, 3};
  backend->gather_rows(out.tensor, in.tensor, rows);
  const std::vector<float> got = out.values(), all = in.values();
  for (std::size_t i = 0; i < 4; ++i) {
    CHECK(std::equal(got.begin() + static_cast<std::ptrdiff_t>(i) * 36,
                     got.begin() + static_cast<std::ptrdiff_t>(i + 1) * 36, all.begin() + rows[i] * 36));
  }
  const std::vector<std::int32_t> bad{0, 1, 2, 7};
  CHECK_THROWS_WITH_AS(backend->gather_rows(out.tensor, in.tensor, bad), doctest::Contains("row 7 of an input of 7"),
                       InvalidArgument);
}

TEST_CASE("KV storages that the kernels do not serve") {
  const auto backend = make();
  const auto with = [&](auto change) {
    KvShape shape = kv_shape();
    change(shape);
    return backend->kv_block_bytes(shape);
  };
  CHECK(with([](KvShape&) {}) == 16384);
  CHECK_THROWS_WITH_AS(with([](KvShape& s) { s.head_dim = 72; }), doctest::Contains("head size 72"), Unsupported);
  CHECK_THROWS_AS(with([](KvShape& s) { s.dtype = DType::f32; }), Unsupported);
  CHECK_THROWS_AS(with([](KvShape& s) { s.block_size = 0; }), Unsupported);
  CHECK_THROWS_AS(with([](KvShape& s) { s.num_layers = 0; }), InvalidArgument);
  KvShape f16 = kv_shape();
  f16.dtype = DType::f16;
  CHECK_THROWS_WITH_AS(backend->allocate_kv(f16, 4), doctest::Contains("f16 with a compute type of bf16"), Unsupported);
  CHECK_THROWS_AS(backend->allocate_kv(kv_shape(), 0), InvalidArgument);
}
