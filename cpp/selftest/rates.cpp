// How fast: copies, swaps, products, attention.
#include <algorithm>
#include <chrono>
#include <functional>
#include <limits>
#include <memory>

#include "backend/checks.hpp"
#include "base/text.hpp"
#include "pagedcore/error.hpp"
#include "pagedcore/selftest.hpp"

namespace pagedcore {
namespace {

constexpr int kRounds = 3;
constexpr std::int32_t kHeads = 32, kKvHeads = 8, kHeadDim = 128, kBlockSize = 16;
constexpr std::int64_t kColumns = 4096;  // of the weight
constexpr std::size_t kLeastBytes = std::size_t{1} << 20;

/// Of one call. Calls of a round are enqueued one after the other and waited for together.
double seconds_of(Backend& device, double at_least, const std::function<void()>& call) {
  const auto round = [&](int calls) {
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < calls; ++i) call();
    device.synchronize();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  };
  round(1);  // warms up
  int calls = 1;
  double seconds = round(calls);
  while (seconds < at_least / kRounds && calls < 1 << 20) seconds = round(calls *= 2);
  double least = seconds / calls;
  for (int i = 1; i < kRounds; ++i) least = std::min(least, round(calls) / calls);
  return least;
}

struct Matrix {
  Matrix(Backend& device, DType dtype, std::int64_t rows, std::int64_t cols)
      : buffer(device.allocate(bytes_of(dtype, rows * cols))), tensor{buffer->data(), dtype, rows, cols, cols} {}
  void fill(Backend& device) const {
    device.upload(tensor, some_numbers(bytes_of(tensor.dtype, tensor.rows * tensor.cols)));
  }
  std::unique_ptr<Buffer> buffer;
  Tensor tensor;
};

class Measurement {
 public:
  Measurement(Backend& device, const SelftestSizes& sizes, const std::function<void()>& told)
      : device_(device), sizes_(sizes), told_(told) {}

  std::vector<SelftestRate> run() {
    check_room(device_, str("a measurement of ", sizes_.bytes, " bytes and ", sizes_.rows, " rows"), most_bytes());
    copies();
    products();
    decode();
    prefill();
    return std::move(rates_);
  }

 private:
  DType dtype() const { return device_.compute_dtype(); }
  std::int64_t element() const { return static_cast<std::int64_t>(bytes_of(dtype(), 1)); }
  std::int64_t weight_rows() const {
    return std::max<std::int64_t>(16, static_cast<std::int64_t>(sizes_.bytes) / (element() * kColumns));
  }
  /// What copies() takes; products(), with the weight as bf16 and packed, then with its largest rows; and prefill().
  double most_bytes() const {
    const auto bytes = static_cast<double>(sizes_.bytes), n = static_cast<double>(weight_rows());
    const auto packed = static_cast<double>(device_.packed_bytes(weight_rows(), kColumns, PackKind::stacked));
    const double row = static_cast<double>(4 * kColumns * element());
    return std::max({3 * bytes, packed + 2 * n * kColumns, packed + sizes_.rows * (row + 4 * n)});
  }
  double measure(const std::function<void()>& call) {
    const double seconds = seconds_of(device_, sizes_.seconds, call);
    if (told_) told_();
    return seconds;
  }

  void copies() {
    const KvShape shape{4, kKvHeads, kHeadDim, kBlockSize, dtype()};
    const std::size_t block = device_.kv_block_bytes(shape);
    const auto count = static_cast<std::uint32_t>(std::max<std::size_t>(1, sizes_.bytes / block));
    const auto kv = device_.allocate_kv(shape, 2 * count);
    const double bytes = static_cast<double>(count) * static_cast<double>(block);
    std::vector<BlockCopy> list;
    std::vector<BlockId> ids;
    for (std::uint32_t i = 0; i < count; ++i) {
      list.push_back({BlockId{i}, BlockId{count + i}, kBlockSize});
      ids.push_back(BlockId{i});
    }
    const std::string blocks = str("blocks of ", block >> 10, " KiB");
    rates_.push_back({"copy_blocks", blocks, measure([&] { device_.copy_blocks(*kv, list); }), 2 * bytes, 0.0, false});

    std::vector<std::byte> host(count * block);
    std::vector<std::byte*> places;
    for (std::uint32_t i = 0; i < count; ++i) places.push_back(host.data() + i * block);
    const std::vector<const std::byte*> sources(places.begin(), places.end());
    // Waited for every time: the next one may not use the host's memory before.
    rates_.push_back({"swap_out", blocks, measure([&] {
                        device_.swap_out(*kv, ids, places);
                        device_.synchronize();
                      }),
                      bytes, 0.0, true});
    rates_.push_back({"swap_in", blocks, measure([&] {
                        device_.swap_in(*kv, ids, sources);
                        device_.synchronize();
                      }),
                      bytes, 0.0, true});
  }

  void products() {
    const std::int64_t n = weight_rows();
    std::unique_ptr<Weight> weight;
    {
      const std::vector<std::byte> values = some_numbers(static_cast<std::size_t>(n * kColumns) * 2);
      const HostTensor part{DType::bf16, {n, kColumns}, 2, values};
      weight = device_.pack({&part, 1}, PackKind::stacked);
    }
    // From one to where a kernel for many takes over, and on; the last is of the size that was asked for.
    for (std::int64_t rows : {1, 2, 4, 8, 16, 32, 33, 64, 128, 256, 1024, 1 << 16}) {
      rows = std::min<std::int64_t>(rows, sizes_.rows);
      const Matrix in(device_, dtype(), rows, kColumns), out(device_, DType::f32, rows, n);
      in.fill(device_);
      const auto moved = static_cast<double>((n + rows) * kColumns * element() + rows * n * 4);
      rates_.push_back({"matmul", str(rows, rows == 1 ? " row, " : " rows, ", n, " x ", kColumns),
                        measure([&] { device_.matmul(out.tensor, in.tensor, *weight, {}); }), moved,
                        2.0 * static_cast<double>(rows * n * kColumns), false});
      if (rows >= sizes_.rows) break;
    }
  }

  void decode() {
    const KvShape shape{1, kKvHeads, kHeadDim, kBlockSize, dtype()};
    const std::size_t block = device_.kv_block_bytes(shape);
    const auto tokens = static_cast<std::int64_t>(sizes_.bytes / block * kBlockSize);
    const auto context = static_cast<std::int32_t>(std::min<std::int64_t>(1024, tokens));
    const auto batch = static_cast<std::int32_t>(std::max<std::int64_t>(1, tokens / context));
    AttentionProbe probe{shape, kHeads, batch, context, 1};
    const double once = attention_seconds(device_, probe);
    probe.repeats = static_cast<std::int32_t>(std::clamp(sizes_.seconds / std::max(once, 1e-6), 3.0, 1e4));
    const double pairs = static_cast<double>(batch) * context;
    rates_.push_back({"attention", str("decode, ", batch, " x ", context, " tokens"), attention_seconds(device_, probe),
                      pairs * static_cast<double>(block) / kBlockSize, 4.0 * pairs * kHeads * kHeadDim, false});
  }

  void prefill() {
    const std::int32_t rows = sizes_.rows;
    const std::int32_t blocks = (rows + kBlockSize - 1) / kBlockSize;
    const auto kv =
        device_.allocate_kv({1, kKvHeads, kHeadDim, kBlockSize, dtype()}, static_cast<std::uint32_t>(blocks));
    const std::vector<BlockId> table = first_blocks(static_cast<std::uint32_t>(blocks));
    const std::vector<TokenId> tokens(static_cast<std::size_t>(rows));
    const std::vector<TokenRange> ranges{{0, rows, 0, 0}};
    const auto batch = device_.prepare({tokens, ranges, table, 1}, kBlockSize);
    const Matrix q(device_, dtype(), rows, kHeads * kHeadDim), out(device_, dtype(), rows, kHeads * kHeadDim);
    const std::vector<std::byte> block = some_numbers(kv->block_bytes());
    device_.swap_in(*kv, table, std::vector<const std::byte*>(table.size(), block.data()));
    device_.synchronize();
    q.fill(device_);
    const AttentionParams params{{kHeads, kKvHeads, kHeadDim, 0}};
    const double pairs = 0.5 * rows * (rows + 1.0);
    const double bytes = 2.0 * rows * (kHeads + kKvHeads) * kHeadDim * static_cast<double>(bytes_of(dtype(), 1));
    rates_.push_back({"attention", str("prefill of ", rows, " tokens"),
                      measure([&] { device_.attention(out.tensor, q.tensor, *kv, 0, *batch, params); }), bytes,
                      4.0 * pairs * kHeads * kHeadDim, false});
  }

  Backend& device_;
  SelftestSizes sizes_;
  const std::function<void()>& told_;
  std::vector<SelftestRate> rates_;
};

}  // namespace

std::vector<SelftestRate> selftest_rates(Backend& device, const SelftestSizes& sizes,
                                         const std::function<void()>& told) {
  if (sizes.bytes < kLeastBytes || sizes.bytes > std::size_t{1} << 36)
    throw InvalidArgument(str("bytes = ", sizes.bytes, " of a measurement; ", kLeastBytes, " to 64 GiB"));
  if (sizes.rows < 1 || sizes.rows > 1 << 16)
    throw InvalidArgument(str("rows = ", sizes.rows, " of a measurement; 1 to 65536"));
  if (!(sizes.seconds >= 0.0 && sizes.seconds <= 60.0))
    throw InvalidArgument(str("seconds = ", sizes.seconds, " of a measurement; 0 to 60"));
  return Measurement(device, sizes, told).run();
}

}  // namespace pagedcore
