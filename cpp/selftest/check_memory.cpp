// Bytes that travel: to the device, on it and back. All of them must arrive.
#include <algorithm>
#include <atomic>
#include <cstring>

#include "selftest/checks.hpp"
#include "selftest/matrix.hpp"

namespace pagedcore::selftest {
namespace {

std::vector<std::byte> random_bytes(std::size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<std::byte> bytes(count);
  for (std::byte& b : bytes) b = static_cast<std::byte>(random());
  return bytes;
}

void append(std::vector<std::byte>& all, const std::vector<std::byte>& more) {
  all.insert(all.end(), more.begin(), more.end());
}

Checks::Pair transfers(Backend& device, bool quick) {
  // Rows with gaps, and one piece that is larger than a device's staging memory may be.
  const std::int64_t rows = 37, cols = 51, large = quick ? 1000 : 7'000'000;
  const auto buffer = device.allocate(bytes_of(DType::f32, rows * (cols + 5))), whole = device.allocate(large * 4ull);
  const Tensor gaps{buffer->data(), DType::f32, rows, cols, cols + 5},
      piece{whole->data(), DType::f32, 1, large, large};
  Checks::Pair pair;
  for (const Tensor& t : {gaps, piece}) {
    std::vector<std::byte> sent = random_bytes(bytes_of(DType::f32, t.rows * t.cols), 1);
    append(pair.want, sent);
    device.upload(t, sent);
    std::ranges::fill(sent, std::byte{0});  // free again as soon as the call returns
    device.download(sent, t);
    append(pair.got, sent);
  }
  return pair;
}

Checks::Pair zeroed(Backend& device) {
  Checks::Pair pair;
  for (int round = 0; round < 2; ++round) {  // the second time perhaps in the memory of the first
    const std::int64_t count = 3001;
    const auto buffer = device.allocate(count * 4ull);
    const Tensor t{buffer->data(), DType::f32, 1, count, count};
    std::vector<std::byte> bytes(count * 4ull, std::byte{1});
    device.download(bytes, t);
    append(pair.got, bytes);
    device.upload(t, random_bytes(bytes.size(), 2));
  }
  pair.want.resize(pair.got.size());
  return pair;
}

/// A device whose memory the host can read shows it what a download gives; others show nothing.
Checks::Pair views(Backend& device) {
  const std::int64_t rows = 5, cols = 33;
  const Matrix matrix(device, DType::f32, rows, cols, normal_values(rows * cols, 4));
  device.synchronize();
  Checks::Pair pair;
  for (std::int64_t r = 0; r < rows; ++r) {
    const Tensor row = matrix.tensor().slice_rows(r, 1);
    const void* const view = device.host_view(row);
    if (view == nullptr) continue;
    std::vector<std::byte> bytes(bytes_of(DType::f32, cols));
    std::memcpy(bytes.data(), view, bytes.size());
    append(pair.got, bytes);
    device.download(bytes, row);
    append(pair.want, bytes);
  }
  return pair;
}

Checks::Pair host_threads(Backend& device) {
  std::vector<std::atomic<unsigned char>> runs(1000);
  device.host_parallel(1000, [&](std::int64_t i) { ++runs[static_cast<std::size_t>(i)]; });
  Checks::Pair pair;
  for (const auto& count : runs) pair.got.push_back(static_cast<std::byte>(count.load()));
  pair.want.resize(runs.size(), std::byte{1});
  return pair;
}

Checks::Pair gathers(Backend& device) {
  Checks::Pair pair;
  const std::int64_t rows = 11, cols = 45;
  const std::vector<std::int32_t> indices{10, 0, 3, 3, 7};
  for (const DType dtype : {DType::f32, device.compute_dtype()}) {
    const std::vector<float> values = normal_values(rows * cols, 3);
    const Matrix in(device, dtype, rows, cols, values);
    const Matrix out(device, dtype, static_cast<std::int64_t>(indices.size()), cols);
    device.gather_rows(out.tensor(), in.tensor(), indices);
    append(pair.got, encoded(out.values(), dtype));
    for (const std::int32_t i : indices) append(pair.want, encoded(std::span(values).subspan(i * 45u, 45), dtype));
  }
  return pair;
}

/// A KV storage whose blocks hold known bytes.
class Blocks {
 public:
  Blocks(Backend& device, std::uint32_t count, DType dtype)
      : device_(device), kv_(device.allocate_kv({2, 2, 64, 16, dtype}, count)) {
    std::vector<BlockId> ids;
    std::vector<const std::byte*> sources;
    for (std::uint32_t i = 0; i < count; ++i) {
      bytes.push_back(random_bytes(kv_->block_bytes(), 100 + i));
      ids.push_back(BlockId{count - 1 - i});
    }
    for (const BlockId id : ids) sources.push_back(bytes[raw(id)].data());
    device.swap_in(*kv_, ids, sources);
    device.synchronize();
  }
  KvStorage& kv() { return *kv_; }
  /// What the blocks hold, against `bytes`.
  Checks::Pair read() {
    std::vector<std::vector<std::byte>> places(bytes.size(), std::vector<std::byte>(kv_->block_bytes()));
    std::vector<BlockId> ids;
    std::vector<std::byte*> targets;
    for (std::uint32_t i = 0; i < places.size(); ++i) {
      ids.push_back(BlockId{i});
      targets.push_back(places[i].data());
    }
    device_.swap_out(*kv_, ids, targets);
    device_.synchronize();
    Checks::Pair pair;
    for (std::size_t i = 0; i < places.size(); ++i) {
      append(pair.got, places[i]);
      append(pair.want, bytes[i]);
    }
    return pair;
  }
  std::vector<std::vector<std::byte>> bytes;

 private:
  Backend& device_;
  std::unique_ptr<KvStorage> kv_;
};

Checks::Pair copies(Backend& device, std::uint32_t count, DType dtype) {
  Blocks blocks(device, count, dtype);
  std::vector<BlockCopy> list;
  for (std::uint32_t i = 0; i < count / 2; ++i) {  // the second of two copies of a block included
    const std::uint32_t from = i / 2, to = count - 1 - i;
    list.push_back({BlockId{from}, BlockId{to}, 16});
    blocks.bytes[to] = blocks.bytes[from];
  }
  device.copy_blocks(blocks.kv(), list);
  return blocks.read();
}

}  // namespace

void check_memory(Checks& checks) {
  const std::uint32_t blocks = checks.quick() ? 12 : 300;
  checks.exact("upload, download", "rows with gaps, one large piece",
               [&](Backend& device) { return transfers(device, checks.quick()); });
  checks.exact("allocate", "zeroed", zeroed);
  checks.exact("host_view", "what a download gives, or nothing", views);
  checks.exact("host_parallel", "every index once", host_threads);
  checks.exact("gather_rows", "f32 and the compute type", gathers);
  checks.exact("swap_in, swap_out", "many blocks, in any order",
               [&](Backend& device) { return Blocks(device, blocks, device.compute_dtype()).read(); });
  checks.exact("copy_blocks", "whole blocks, all at once",
               [&](Backend& device) { return copies(device, blocks, device.compute_dtype()); });
  if (checks.compute_dtype() == DType::f32) return;  // narrower KV goes with narrower types
  for (const DType kv : {DType::i8, DType::f8_e4m3}) {
    checks.exact_optional("copy_blocks", "whole blocks of " + std::string(info(kv).name),
                          [&](Backend& device) { return copies(device, 12, kv); });
  }
}

}  // namespace pagedcore::selftest
