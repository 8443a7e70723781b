// Subtrees of a product as weights of their own, and Backend::combine: the bits of the fused product.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <deque>
#include <random>

#include "../cpu_matmul/blocks.hpp"
#include "model/leaves.hpp"
#include "model/shard.hpp"
#include "model/slices.hpp"
#include "pagedcore/backend.hpp"
#include "pagedcore/error.hpp"

using namespace pagedcore;

namespace {

constexpr std::int64_t kRows = 5, kOut = 70;

/// A matrix of some type, in memory.
struct Source {
  HostTensor host;
  std::vector<float> numbers;
  std::optional<matmul_test::Blocks> blocks;
};

Source plain(std::int64_t k, std::mt19937& random) {
  Source source;
  std::normal_distribution<float> normal;
  source.numbers.resize(static_cast<std::size_t>(kOut * k));
  for (float& x : source.numbers) x = normal(random);
  source.host = {DType::f32, {kOut, k}, 2, std::as_bytes(std::span(source.numbers))};
  return source;
}

Source in_blocks(DType type, std::int64_t k, std::mt19937& random) {
  Source source;
  source.blocks = matmul_test::random_blocks(type, kOut, k, random);
  source.host = source.blocks->host();
  return source;
}

class Memory {
 public:
  Memory(Backend& backend, DType type, std::int64_t rows, std::int64_t cols)
      : buffer_(backend.allocate(bytes_of(type, rows * cols))), tensor_{buffer_->data(), type, rows, cols, cols} {}
  const Tensor& tensor() const { return tensor_; }
  bool same(const Memory& other) const {
    return std::memcmp(buffer_->data(), other.buffer_->data(), buffer_->bytes()) == 0;
  }

 private:
  std::unique_ptr<Buffer> buffer_;
  Tensor tensor_;
};

/// Ranges of leaves, as many as there are ranks, some of them empty.
std::vector<Interval> random_ranges(std::int64_t leaves, std::mt19937& random) {
  std::vector<std::int64_t> borders{0, leaves};
  for (auto i = random() % 5; i > 0; --i)
    borders.push_back(static_cast<std::int64_t>(random() % static_cast<std::uint32_t>(leaves + 1)));
  std::ranges::sort(borders);
  std::vector<Interval> ranges;
  for (std::size_t i = 0; i + 1 < borders.size(); ++i) ranges.push_back({borders[i], borders[i + 1]});
  return ranges;
}

void check_parts(Backend& backend, const Source& source, const std::vector<std::int64_t>& ends, std::mt19937& random) {
  const std::int64_t k = ends.back();
  std::normal_distribution<float> normal;
  Memory wide(backend, DType::f32, kRows, k), in(backend, backend.compute_dtype(), kRows, k);
  Memory bias(backend, DType::f32, 1, kOut), whole(backend, DType::f32, kRows, kOut),
      parts(backend, DType::f32, kRows, kOut);
  const auto fill = [&](const Memory& memory) {
    std::vector<float> numbers(static_cast<std::size_t>(memory.tensor().rows * memory.tensor().cols));
    for (float& x : numbers) x = normal(random);
    backend.upload(memory.tensor(), std::as_bytes(std::span(numbers)));
  };
  for (const Memory* memory : {&wide, &bias, &whole}) fill(*memory);
  backend.convert(in.tensor(), wide.tensor());
  backend.convert(parts.tensor(), whole.tensor());

  const bool accumulate = random() % 2 == 0;
  const Epilogue epilogue{accumulate ? Epilogue::Kind::accumulate : Epilogue::Kind::store, Activation::silu,
                          random() % 2 == 0 ? &bias.tensor() : nullptr};
  const auto fused = backend.pack({&source.host, 1}, {PackKind::stacked, ends});
  backend.matmul(whole.tensor(), in.tensor(), *fused, epilogue);

  std::vector<TreeNode> nodes;
  std::deque<Memory> sums;
  std::vector<Tensor> values;
  const auto leaves = static_cast<std::int64_t>(ends.size());
  for (const Interval& range : random_ranges(leaves, random))
    for (const CutPart& part : cut_of(ends, range).parts) {
      const Columns columns(source.host, part.columns);
      const HostTensor host = columns.tensor();
      const auto weight = backend.pack({&host, 1}, {PackKind::stacked, part.leaf_ends});
      sums.emplace_back(backend, DType::f32, kRows, kOut);
      backend.matmul(sums.back().tensor(), in.tensor().slice_cols(part.columns.first, part.columns.size()), *weight,
                     {});
      nodes.push_back(part.node);
      values.push_back(sums.back().tensor());
    }
  backend.combine(parts.tensor(), {nodes, values, leaves}, epilogue);
  CHECK(parts.same(whole));
}

}  // namespace

// rule: backend.combine-is-the-epilogue
TEST_CASE("random ranges of leaves combine to the bits of the fused product: f32 and bf16, on every instruction set") {
  std::mt19937 random(4);
  for (const std::string& isa : cpu_isas())
    for (const DType dtype : {DType::f32, DType::bf16})
      for (int repeat = 0; repeat < 12; ++repeat) {
        CAPTURE(isa);
        CAPTURE(info(dtype).name);
        const std::int64_t heads = 1 + random() % 9,
                           head = std::vector<std::int64_t>{5, 16, 64, 100, 192}[random() % 5];
        const auto ends = repeat % 2 == 0 ? head_leaves(heads, head) : down_leaves(1 + random() % 700);
        const auto backend = make_cpu_backend({1 + repeat % 2, dtype, isa});
        check_parts(*backend, plain(ends.back(), random), ends, random);
      }
}

TEST_CASE("the same of every block format, widened or in integers, and of weights that are rounded") {
  std::mt19937 random(5);
  for (const std::string& isa : cpu_isas())
    for (const DType format : matmul_test::kFormats)
      for (const DType dtype : {DType::f32, DType::bf16, DType::i8}) {
        CAPTURE(isa);
        CAPTURE(info(format).name);
        CAPTURE(info(dtype).name);
        const auto backend = make_cpu_backend({1, dtype, isa, WeightStorage::native});
        // A cut within a large block changes what is in integers: of those formats leaves are whole blocks here.
        const std::int64_t block = info(format).block_elements;
        const std::int64_t k = block > 32 && dtype == DType::i8 ? 16 * block : 1024;
        check_parts(*backend, in_blocks(format, k, random), down_leaves(k), random);
      }
  for (const WeightStorage storage : {WeightStorage::int8, WeightStorage::int4}) {
    const auto backend = make_cpu_backend({1, DType::bf16, "auto", storage});
    check_parts(*backend, plain(512, random), down_leaves(512), random);
  }
}

TEST_CASE("combine refuses what is no tree of its leaves") {
  const auto backend = make_cpu_backend({1, DType::f32});
  const Memory out(*backend, DType::f32, 2, 3), value(*backend, DType::f32, 2, 3), other(*backend, DType::f32, 2, 4);
  const TreeNode root{1, 0}, leaf{0, 0};
  const auto combine = [&](const TreeNode& node, const Tensor& tensor, const Epilogue& epilogue = {}) {
    backend->combine(out.tensor(), {{&node, 1}, {&tensor, 1}, 2}, epilogue);
  };
  CHECK_NOTHROW(combine(root, value.tensor()));
  CHECK_THROWS_AS(combine(leaf, value.tensor()), InvalidArgument);
  CHECK_THROWS_AS(combine(root, other.tensor()), InvalidArgument);
  CHECK_THROWS_AS(combine(root, value.tensor(), {Epilogue::Kind::activated}), InvalidArgument);
}
