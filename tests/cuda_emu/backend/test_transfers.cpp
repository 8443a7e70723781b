// What swaps and copies of blocks move: over the bus, as the fake runtime counts copies, and between the
// multiprocessors and device memory. Compiled to call the emulator, with the kernel that moves the blocks.
#include "emulator/options.hpp"
#include "emulator/traffic.hpp"
#include "harness.hpp"

using namespace cuda_test;

namespace {

constexpr std::uint32_t kBlocks = 40, kMoved = 20, kPieces = 3;  // of at most 8 blocks

struct Moved {
  cuda_emu::CopyCounters copies;
  cuda_emu::Traffic traffic;
  std::uint64_t launches = 0;
  double requested() const { return static_cast<double>(traffic.read_bytes + traffic.written_bytes); }
};

template <typename Run>
Moved moved_by(Backend& backend, const Run& run) {
  backend.synchronize();
  const cuda_emu::CopyCounters before = cuda_emu::copy_counters();
  const std::uint64_t launches = cuda_emu::counters().launches;
  cuda_emu::count_traffic();
  run();
  backend.synchronize();
  Moved moved{cuda_emu::copy_counters(), cuda_emu::counted_traffic(), cuda_emu::counters().launches - launches};
  moved.copies.in -= before.in, moved.copies.out -= before.out, moved.copies.within -= before.within;
  moved.copies.bytes_in -= before.bytes_in, moved.copies.bytes_out -= before.bytes_out;
  return moved;
}

/// Not less either: a count that misses accesses proves nothing.
void check_near(double bytes, double ideal) {
  CAPTURE(ideal);
  CHECK(bytes <= 1.1 * ideal);
  CHECK(bytes >= ideal);
}

}  // namespace

TEST_CASE("swaps move whole blocks in few pieces: over the bus once, past the multiprocessors in and out once") {
  CudaOptions options = small();
  options.workspace = 1 << 20;  // pieces of 128 KiB
  const auto backend = make(options);
  const auto kv = backend->allocate_kv({2, 2, 64, 16, DType::bf16}, kBlocks);
  REQUIRE(kv->block_bytes() == 16384);
  std::vector<BlockId> blocks;
  std::vector<std::byte> places(kMoved * kv->block_bytes());
  std::vector<std::byte*> dst;
  for (std::uint32_t i = 0; i < kMoved; ++i) {
    blocks.push_back(BlockId{kBlocks - 1 - 2 * i});
    dst.push_back(places.data() + i * kv->block_bytes());
  }
  const std::vector<const std::byte*> src(dst.begin(), dst.end());
  const double bytes = static_cast<double>(places.size());

  const Moved out = moved_by(*backend, [&] { backend->swap_out(*kv, blocks, dst); });
  CHECK(out.copies.bytes_out == places.size());
  CHECK(out.copies.out == kPieces);
  CHECK(out.copies.bytes_in == kMoved * sizeof(std::uint32_t));  // which blocks
  CHECK(out.copies.in == kPieces);
  CHECK(out.launches == kPieces);
  check_near(out.requested(), 2 * bytes);

  const Moved in = moved_by(*backend, [&] { backend->swap_in(*kv, blocks, src); });
  check_near(static_cast<double>(in.copies.bytes_in), bytes);
  CHECK(in.copies.in == 2 * kPieces);
  CHECK(in.copies.out == 0);
  CHECK(in.launches == kPieces);
  check_near(in.requested(), 2 * bytes);
  CHECK(out.copies.within + in.copies.within == 0);
}

TEST_CASE("the copies of blocks of a step are one launch and one upload, and move every byte in and out once") {
  const auto backend = make();
  const auto kv = backend->allocate_kv({2, 2, 64, 16, DType::bf16}, kBlocks);
  std::vector<BlockCopy> copies;
  for (std::uint32_t i = 0; i < kMoved; ++i) copies.push_back({BlockId{2 * i}, BlockId{2 * i + 1}, 16});
  const Moved moved = moved_by(*backend, [&] { backend->copy_blocks(*kv, copies); });
  CHECK(moved.launches == 1);
  CHECK(moved.copies.in == 1);
  CHECK(moved.copies.bytes_in == 2 * kMoved * sizeof(std::uint32_t));
  CHECK(moved.copies.out + moved.copies.within == 0);
  check_near(moved.requested(), 2.0 * static_cast<double>(kMoved * kv->block_bytes()));
}
