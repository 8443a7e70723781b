// Sums over leaves of k: in order within a leaf, leaves in one binary tree, then bias, then residual.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <functional>

#include "backend/sum_tree.hpp"
#include "common.hpp"
#include "cpu/matmul/matmul.hpp"
#include "cpu/matmul/product.hpp"
#if defined(__x86_64__)
#include "amx_emulated.hpp"
#endif
#include "cpu/matmul/layout.hpp"

using namespace matmul_test;
using cpu::Isa;
using cpu::ThreadPool;
using Kind = Epilogue::Kind;

namespace {

using Ends = std::vector<std::int64_t>;

/// A product on one kernel: through the dispatcher, or where this machine cannot run the instruction set, its
/// emulation.
struct Target {
  std::string name;
  Isa isa;
  DType dtype;
  bool emulated = false;
};

std::vector<Target> targets() {
  std::vector<Target> all;
  for_every_kernel([&](Isa isa, DType dtype) {
    all.push_back({std::string(cpu::name(isa)) + " " + std::string(info(dtype).name), isa, dtype});
  });
#if defined(__x86_64__)
  if (cpu::supported(Isa::avx512)) all.push_back({"emulated amx", Isa::amx, DType::bf16, true});
#endif
  return all;
}

void multiply(const Target& target, ThreadPool& pool, const Tensor& out, const Tensor& in, const Weight& weight,
              const Epilogue& epilogue) {
  if (!target.emulated) return cpu::matmul(pool, out, in, weight, epilogue);
#if defined(__x86_64__)
  const auto& packed = static_cast<const cpu::PackedWeight&>(weight);
  cpu::MatmulArgs args;
  args.in = in.data;
  args.in_stride = in.stride;
  args.m = in.rows;
  args.k = weight.k();
  args.k_padded = packed.layout().k_padded;
  args.leaves = packed.layout().leaves.data();
  args.num_leaves = static_cast<std::int64_t>(packed.layout().leaves.size());
  args.weights = packed.panel(0);
  args.panel_bytes = packed.layout().panel_bytes;
  args.out = out.data;
  args.out_stride = out.stride;
  args.n = weight.n();
  args.bias = epilogue.bias == nullptr ? nullptr : static_cast<const float*>(epilogue.bias->data);
  args.finish = static_cast<cpu::Finish>(epilogue.kind);
  args.activation = static_cast<cpu::ActivationFunction>(epilogue.activation);
  args.out_is_bf16 = out.dtype == DType::bf16;
  const auto bytes = static_cast<std::size_t>(cpu::emulated_amx_kernel.scratch_bytes(args));
  std::vector<unsigned char> scratch(bytes + 64, 0xff);  // NaN: what is read was written
  auto* aligned = reinterpret_cast<void*>((reinterpret_cast<std::uintptr_t>(scratch.data()) + 63) / 64 * 64);
  cpu::emulated_amx_kernel.run(args, {0, args.m, 0, packed.layout().panels}, aligned);
#endif
}

std::unique_ptr<Weight> pack(const Target& target, ThreadPool& pool, const Matrix& w, const Ends& ends) {
  const HostTensor host = w.host();
  return cpu::pack_weight(pool, {&host, 1}, {PackKind::stacked, ends}, target.isa, target.dtype);
}

Matrix columns(const Matrix& from, std::int64_t first, std::int64_t count) {
  Matrix part(from.rows, count, count, from.dtype);
  for (std::int64_t i = 0; i < from.rows; ++i)
    for (std::int64_t j = 0; j < count; ++j) part.set(i, j, static_cast<float>(from.get(i, first + j)));
  return part;
}

/// The tree over the sums of leaves, each the product of a weight of its own that has one leaf.
std::vector<float> tree_of_leaves(const Target& target, ThreadPool& pool, const Matrix& in, const Matrix& w,
                                  const Ends& ends) {
  const auto count = static_cast<std::size_t>(in.rows * w.rows);
  std::vector<std::vector<float>> sums;
  std::vector<TreeNode> nodes;
  std::int64_t first = 0;
  for (const std::int64_t end : ends) {
    Matrix part = columns(in, first, end - first);
    const auto weight = pack(target, pool, columns(w, first, end - first), {});
    Matrix out(in.rows, w.rows, w.rows, DType::f32);
    multiply(target, pool, out.view(), part.view(), *weight, {});
    nodes.push_back({0, static_cast<std::int64_t>(sums.size())});
    sums.push_back(out.f32);
    first = end;
  }
  const std::vector<std::span<const float>> values(sums.begin(), sums.end());
  std::vector<float> root(count);
  combine(nodes, values, static_cast<std::int64_t>(ends.size()), root);
  return root;
}

/// What the order is, in one scalar at a time: where products are exact in f32 (bf16) or fused (f32), an instruction
/// set that adds them one by one has these bits.
float naive(const Matrix& in, const Matrix& w, std::int64_t row, std::int64_t column, const Ends& ends, bool fused) {
  const std::function<float(int, std::int64_t)> node = [&](int level, std::int64_t index) -> float {
    if (level > 0) {
      const float left = node(level - 1, 2 * index);
      const std::int64_t right = (2 * index + 1) << (level - 1);
      return right < static_cast<std::int64_t>(ends.size()) ? left + node(level - 1, 2 * index + 1) : left;
    }
    const auto leaf = static_cast<std::size_t>(index);
    float sum = 0.0f;
    for (std::int64_t k = leaf == 0 ? 0 : ends[leaf - 1]; k < ends[leaf]; ++k) {
      const auto x = static_cast<float>(in.get(row, k)), y = static_cast<float>(w.get(column, k));
      sum = fused ? std::fma(x, y, sum) : sum + x * y;
    }
    return sum;
  };
  return node(root_of(static_cast<std::int64_t>(ends.size())).level, 0);
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

/// Heads of many sizes, pieces of 32, leaves of odd lengths, long leaves beside short ones.
const std::vector<Ends>& forms() {
  static const std::vector<Ends> all = [] {
    std::vector<Ends> list{{64, 128, 192, 256, 320, 384, 448, 512, 576},
                           {40, 80, 120},
                           {100, 200, 300, 400, 500},
                           {1},
                           {1, 2, 3, 70},
                           {31, 64, 97},
                           {576, 577},
                           {33, 1000, 1001, 1024, 1600}};
    Ends pieces;
    for (std::int64_t i = 1; i <= 16; ++i) pieces.push_back(i * 1536 / 16);
    list.push_back(pieces);
    Ends many;
    for (std::int64_t i = 1; i <= 41; ++i) many.push_back(i * 7);
    list.push_back(many);
    return list;
  }();
  return all;
}

}  // namespace

TEST_CASE("every kernel: the tree over the kernel's own sums of leaves, then bias, then residual, to the last bit") {
  std::mt19937 random(5);
  ThreadPool pool(2);
  for (const Target& target : targets()) {
    CAPTURE(target.name);
    for (const Ends& ends : forms()) {
      const std::int64_t k = ends.back(), n = 45, m = std::int64_t{1} + static_cast<std::int64_t>(random() % 70);
      CAPTURE(k);
      CAPTURE(ends.size());
      CAPTURE(m);
      Matrix in = Matrix::random(m, k, k + 3, target.dtype, random);
      const Matrix w = Matrix::random(n, k, k, target.dtype, random);
      const auto weight = pack(target, pool, w, ends);
      const std::vector<float> root = tree_of_leaves(target, pool, in, w, ends);
      CHECK(std::ranges::all_of(root, [](float x) { return std::isfinite(x); }));  // what padding holds is zero
      Matrix out(m, n, n, DType::f32);
      multiply(target, pool, out.view(), in.view(), *weight, {});
      CHECK(same_bits(out.f32, root));

      Matrix bias = Matrix::random(1, n, n, DType::f32, random), residual = Matrix::random(m, n, n, DType::f32, random);
      const Tensor bias_view = bias.view();
      std::vector<float> expected = residual.f32;
      for (std::size_t i = 0; i < expected.size(); ++i)
        expected[i] += root[i] + bias.f32[i % static_cast<std::size_t>(n)];
      multiply(target, pool, residual.view(), in.view(), *weight, {Kind::accumulate, Activation::silu, &bias_view});
      CHECK(same_bits(residual.f32, expected));
    }
  }
}

TEST_CASE("the defined order, one scalar at a time: the bits of every kernel that adds one product after another") {
  std::mt19937 random(6);
  ThreadPool pool(1);
  for_every_kernel([&](Isa isa, DType dtype) {
    if (dtype == DType::bf16 && (isa == Isa::avx512_bf16 || isa == Isa::amx)) return;  // they add pairs and tiles
    const Target target{"", isa, dtype};
#if defined(__x86_64__)
    const bool fused = isa != Isa::portable;
#else
    const bool fused = true;  // NEON
#endif
    CAPTURE(cpu::name(isa));
    CAPTURE(info(dtype).name);
    for (const Ends& ends : forms()) {
      const std::int64_t k = ends.back(), n = 19, m = 3;
      Matrix in = Matrix::random(m, k, k, dtype, random);
      const Matrix w = Matrix::random(n, k, k, dtype, random);
      const auto weight = pack(target, pool, w, ends);
      Matrix out(m, n, n, DType::f32);
      multiply(target, pool, out.view(), in.view(), *weight, {});
      std::vector<float> expected;
      for (std::int64_t i = 0; i < m; ++i)
        for (std::int64_t j = 0; j < n; ++j) expected.push_back(naive(in, w, i, j, ends, fused));
      CAPTURE(k);
      CHECK(same_bits(out.f32, expected));
    }
  });
}

// rule: cpu.row-stands-alone
TEST_CASE("with leaves too a row's bits depend on neither the batch, nor its place in it, nor the threads") {
  std::mt19937 random(7);
  ThreadPool one(1), three(3);
  for (const Target& target : targets()) {
    if (target.isa == Isa::portable) continue;  // slow, and cut the same way
    CAPTURE(target.name);
    for (const Ends& ends : {forms()[0], forms()[1], forms()[7], forms()[8]}) {
      const std::int64_t k = ends.back(), n = 70, rows = 600;
      Matrix in = Matrix::random(rows, k, k, target.dtype, random);
      const auto weight = pack(target, three, Matrix::random(n, k, k, target.dtype, random), ends);
      Matrix alone(rows, n, n, DType::f32);
      const std::int64_t checked = target.emulated ? 30 : 80;  // rows from the end, the others only fill batches
      for (std::int64_t i = rows - checked; i < rows; ++i)
        multiply(target, one, alone.view().slice_rows(i, 1), in.view().slice_rows(i, 1), *weight, {});
      for (const std::int64_t m : {2, 15, 17, 31, 33, 47, 70, 600}) {
        if (m == 600 && target.emulated && k > 600) continue;  // slow
        Matrix batch(rows, n, n, DType::f32);
        multiply(target, three, batch.view().slice_rows(rows - m, m), in.view().slice_rows(rows - m, m), *weight, {});
        const std::int64_t first = rows - std::min(m, checked);
        CAPTURE(m);
        CAPTURE(k);
        CHECK(std::memcmp(&batch.f32[static_cast<std::size_t>(first * n)],
                          &alone.f32[static_cast<std::size_t>(first * n)],
                          static_cast<std::size_t>((rows - first) * n) * sizeof(float)) == 0);
      }
    }
  }
}

TEST_CASE("a weight of several leaves holds the matrix, padded to whole steps of each leaf") {
  std::mt19937 random(8);
  ThreadPool pool(2);
  for_every_kernel([&](Isa isa, DType dtype) {
    for (const Ends& ends : forms()) {
      const Matrix w = Matrix::random(37, ends.back(), ends.back(), dtype, random);
      const HostTensor host = w.host();
      const WeightForm form{PackKind::stacked, ends};
      const auto weight = cpu::pack_weight(pool, {&host, 1}, form, isa, dtype);
      CHECK(weight->bytes() == cpu::packed_weight_bytes(37, ends.back(), form, isa, dtype));
      std::vector<float> row(static_cast<std::size_t>(ends.back()));
      for (const std::int64_t r : {0, 17, 36}) {
        cpu::unpack_row(*weight, r, row.data());
        bool same = true;
        for (std::size_t i = 0; i < row.size(); ++i) same = same && row[i] == w.get(r, static_cast<std::int64_t>(i));
        CHECK(same);
      }
    }
  });
}

#if defined(__x86_64__)
// rule: cpu.slots-then-leaves
TEST_CASE("AMX adds the sums of leaves to what other experts gave, each to its row") {
  if (!cpu::supported(Isa::avx512)) return;  // what emulates it needs that
  const Target target{"emulated amx", Isa::amx, DType::bf16, true};
  std::mt19937 random(31);
  ThreadPool pool(1);
  for (const std::int64_t m : {1, 5, 16, 21, 40}) {
    CAPTURE(m);
    const Ends ends{32, 64, 70};
    Matrix in = Matrix::random(m, 70, 75, DType::bf16, random);
    const Matrix w = Matrix::random(40, 70, 70, DType::bf16, random);
    const auto weight = pack(target, pool, w, ends);
    const auto& packed = static_cast<const cpu::PackedWeight&>(*weight);
    std::vector<std::int32_t> places;
    for (std::int32_t row = 0; row < m; ++row) places.push_back(static_cast<std::int32_t>(m) - 1 - row);
    cpu::MatmulArgs args = cpu::product_args(in.view(), packed);
    args.weights = packed.panel(0);
    args.panel_bytes = packed.layout().panel_bytes;
    args.finish = cpu::Finish::leaf_sums;
    args.rows.places = places.data();
    args.out_stride = m * 32;
    std::vector<unsigned char> scratch(static_cast<std::size_t>(cpu::emulated_amx_kernel.scratch_bytes(args)) + 64);
    auto* aligned = reinterpret_cast<void*>((reinterpret_cast<std::uintptr_t>(scratch.data()) + 63) / 64 * 64);
    std::vector<std::vector<float>> want;  // of each leaf by itself
    for (std::size_t leaf = 0; leaf < ends.size(); ++leaf) {
      const std::int64_t first = leaf == 0 ? 0 : ends[leaf - 1], count = ends[leaf] - first;
      Matrix part = columns(in, first, count), out(m, 40, 40, DType::f32);
      multiply(target, pool, out.view(), part.view(), *pack(target, pool, columns(w, first, count), {}), {});
      want.push_back(out.f32);
    }
    for (std::int64_t panel = 0; panel < 2; ++panel) {
      std::vector<float> sums(ends.size() * static_cast<std::size_t>(m) * 32, 0.5f);
      args.out = sums.data();
      cpu::emulated_amx_kernel.run(args, {0, m, panel, panel + 1}, aligned);
      for (std::size_t leaf = 0; leaf < ends.size(); ++leaf)
        for (std::int64_t row = 0; row < m; ++row)
          for (std::int64_t c = 0; c < 32 && panel * 32 + c < 40; ++c) {
            const auto at = (leaf * static_cast<std::size_t>(m) + static_cast<std::size_t>(m - 1 - row)) * 32;
            CHECK(sums[at + static_cast<std::size_t>(c)] ==
                  0.5f + want[leaf][static_cast<std::size_t>(row * 40 + panel * 32 + c)]);
          }
    }
  }
}
#endif
