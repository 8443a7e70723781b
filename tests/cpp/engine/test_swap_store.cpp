// The swap space: blocks come back bit for bit from both tiers, and whatever a disk does is told and never believed.
#include <doctest/doctest.h>
#include <sys/stat.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <random>

#include "base/checksum.hpp"
#include "engine/swap_store.hpp"
#include "pagedcore/error.hpp"

using namespace pagedcore;

namespace {

/// A file in memory that can be told to fail. For one thread.
class FakeFile final : public SwapFile {
 public:
  void write(std::uint64_t offset, std::span<const std::byte> bytes) override {
    ++writes;
    if (writes == full_at) throw Io("No space left on device");
    if (content.size() < offset + bytes.size()) content.resize(offset + bytes.size());
    std::memcpy(content.data() + offset, bytes.data(), bytes.size());
  }
  void read(std::uint64_t offset, std::span<std::byte> bytes) override {
    ++reads;
    if (reads == broken_at) throw Io("Input/output error");
    if (content.size() < offset + bytes.size()) throw Io("the file ends before them");
    std::memcpy(bytes.data(), content.data() + offset, bytes.size());
  }
  std::vector<std::byte> content;
  int writes = 0, reads = 0, full_at = -1, broken_at = -1;
};

struct World {
  static constexpr std::uint32_t kBlocks = 24;

  World(std::uint32_t host_slots, std::uint32_t file_slots, std::unique_ptr<SwapFile> file, int threads = 1) {
    backend = make_cpu_backend({.threads = threads});
    const KvShape shape{3, 2, 64, 16, DType::bf16};
    kv = backend->allocate_kv(shape, kBlocks);
    bytes = kv->block_bytes();
    store = std::make_unique<SwapStore>(SwapConfig{bytes, host_slots, file_slots}, std::move(file));
  }
  /// Puts contents into a block through the public way in.
  void fill(std::uint32_t block, std::uint32_t seed) {
    std::vector<std::byte> content = contents(seed);
    const std::byte* source = content.data();
    const BlockId id{block};
    backend->swap_in(*kv, {&id, 1}, {&source, 1});
  }
  bool holds(std::uint32_t block, std::uint32_t seed) {
    std::vector<std::byte> found(bytes);
    std::byte* place = found.data();
    const BlockId id{block};
    backend->swap_out(*kv, {&id, 1}, {&place, 1});
    backend->synchronize();
    return found == contents(seed);
  }
  std::vector<std::byte> contents(std::uint32_t seed) const {
    std::mt19937 random(seed);
    std::vector<std::byte> content(bytes);
    for (std::byte& byte : content) byte = static_cast<std::byte>(random());
    return content;
  }
  std::vector<std::uint8_t> out(const std::vector<BlockSwap>& moves) {
    std::vector<std::uint8_t> failed(moves.size(), 9);
    store->store(*backend, *kv, moves, failed);
    return failed;
  }
  std::vector<std::uint8_t> in(const std::vector<BlockSwap>& moves) {
    std::vector<std::uint8_t> failed(moves.size(), 9);
    store->load(*backend, *kv, moves, failed);
    return failed;
  }

  std::unique_ptr<Backend> backend;
  std::unique_ptr<KvStorage> kv;
  std::unique_ptr<SwapStore> store;
  std::size_t bytes = 0;
};

std::string temporary(const char* name) {
  return (std::filesystem::temp_directory_path() / (name + std::to_string(std::random_device{}()))).string();
}

using Failed = std::vector<std::uint8_t>;

}  // namespace

TEST_CASE("blocks come back bit for bit, through both tiers in one call") {
  const std::string path = temporary("pagedcore-swap-");
  World world(5, 13, make_swap_file(path), 2);
  CHECK_FALSE(std::filesystem::exists(path));  // it has no name: nobody finds it, and it goes with the process
  std::vector<BlockSwap> moves, back;
  for (std::uint32_t i = 0; i < 18; ++i) {
    world.fill(i, 100 + i);
    moves.push_back({BlockId{i}, SwapSlot{17 - i}});
  }
  CHECK(world.out(moves) == Failed(18, 0));
  for (std::uint32_t i = 0; i < 18; ++i) world.fill(i, 1);
  for (std::uint32_t i = 0; i < 18; ++i) back.push_back({BlockId{23 - i}, SwapSlot{17 - i}});
  CHECK(world.in(back) == Failed(18, 0));
  for (std::uint32_t i = 0; i < 18; ++i) CHECK(world.holds(23 - i, 100 + i));
  const SwapCounters& counters = world.store->counters();
  CHECK(counters.bytes_out == 18 * world.bytes);
  CHECK(counters.bytes_in == 18 * world.bytes);
  CHECK(counters.file_bytes_out == 13 * world.bytes);
  CHECK(counters.file_bytes_in == 13 * world.bytes);
  CHECK(counters.errors == 0);
  CHECK(counters.block_out > 0.0);
  CHECK(counters.block_in > 0.0);
  CHECK(world.store->last_error().empty());
}

TEST_CASE("one read or write per block") {
  auto owned = std::make_unique<FakeFile>();
  FakeFile& file = *owned;
  World world(0, 20, std::move(owned));
  std::vector<BlockSwap> moves;
  for (std::uint32_t i = 0; i < 20; ++i) moves.push_back({BlockId{i}, SwapSlot{i}});
  world.out(moves);
  world.in(moves);
  CHECK(file.writes == 20);
  CHECK(file.reads == 20);
}

// rule: engine.lost-block-costs-time
TEST_CASE("a flipped bit, a file cut short, a full disk and a failing one cost their block and no other") {
  auto owned = std::make_unique<FakeFile>();
  FakeFile& file = *owned;
  World world(1, 6, std::move(owned));
  std::vector<BlockSwap> moves;
  for (std::uint32_t i = 0; i < 7; ++i) {
    world.fill(i, i);
    moves.push_back({BlockId{i}, SwapSlot{i}});
  }
  file.full_at = 3;  // slot 3
  CHECK(world.out(moves) == Failed{0, 0, 0, 1, 0, 0, 0});
  CHECK(world.store->last_error().find("No space left") != std::string::npos);
  file.content[world.bytes + 1234] ^= std::byte{0x10};  // slot 2
  file.content.resize(6 * world.bytes - 1);             // slot 6
  file.broken_at = 4;                                   // slot 4
  for (std::uint32_t i = 0; i < 7; ++i) world.fill(i, 99);
  CHECK(world.in(moves) == Failed{0, 0, 1, 1, 1, 0, 1});
  CHECK(world.store->counters().errors == 1 + 4);
  for (const std::uint32_t good : {0u, 1u, 5u}) CHECK(world.holds(good, good));
  for (const std::uint32_t lost : {2u, 4u, 6u}) CHECK(world.holds(lost, 99));  // nothing that is not trusted gets in
}

TEST_CASE("every single flipped bit changes the checksum") {
  std::mt19937 random(5);
  for (const std::size_t size : {1u, 7u, 32u, 100u, 4096u}) {
    std::vector<std::byte> bytes(size);
    for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
    const std::uint64_t good = checksum(bytes);
    for (std::size_t bit = 0; bit < 8 * size; ++bit) {
      bytes[bit / 8] ^= std::byte{1} << bit % 8;
      REQUIRE(checksum(bytes) != good);
      bytes[bit / 8] ^= std::byte{1} << bit % 8;
    }
    CHECK(checksum(bytes) == good);
    bytes.push_back(std::byte{0});
    CHECK(checksum(bytes) != good);
  }
}

TEST_CASE("a swap file that cannot be created is refused with the path and the remedy") {
  const std::string path = temporary("pagedcore-swap-");
  std::ofstream(path) << "precious";
  const auto refused = [](const std::string& at, const std::string& why) {
    try {
      make_swap_file(at);
      FAIL("it was made");
    } catch (const Io& error) {
      CHECK(std::string(error.what()).find(at) != std::string::npos);
      CHECK(std::string(error.what()).find(why) != std::string::npos);
    }
  };
  refused(path, "choose a path where there is no file yet");
  std::ifstream kept(path);
  std::string word;
  kept >> word;
  CHECK(word == "precious");
  std::filesystem::remove(path);
  refused("/nowhere/at/all", "choose a path in a directory");
  CHECK_THROWS_AS(SwapStore({1024, 0, 4}, nullptr), InvalidArgument);
  CHECK_THROWS_AS(SwapStore({std::size_t{1} << 45, 1000, 0}, nullptr), OutOfMemory);
}

TEST_CASE("a block outside the storage is refused before anything moves") {
  World world(4, 0, nullptr);
  world.fill(1, 5);
  CHECK_THROWS_AS(world.out({{BlockId{1}, SwapSlot{0}}, {BlockId{World::kBlocks}, SwapSlot{1}}}), InvalidArgument);
  CHECK(world.holds(1, 5));
}
