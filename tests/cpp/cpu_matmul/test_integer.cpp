// Products in integers: against sums in double of what the file and the rounded inputs say, and bits that are the same
// on every instruction set.
#include <doctest/doctest.h>

#include <algorithm>

#include "backend/sum_tree.hpp"
#include "blocks.hpp"
#include "common.hpp"
#include "cpu/matmul/layout.hpp"
#include "cpu/matmul/matmul.hpp"

using namespace matmul_test;
using cpu::IntegerKernel;
using cpu::Isa;
using cpu::PanelForms;
using cpu::ThreadPool;
using Kind = Epilogue::Kind;
using Leaves = std::vector<std::int64_t>;

namespace {

struct Kernel {
  std::string name;
  Isa isa;  // whose dense panels are as wide
  const IntegerKernel* integer;
};

/// Those that this machine runs, the portable one first; of the sets above AVX-512 the kernel is that one's.
std::vector<Kernel> kernels() {
  std::vector<Kernel> list{{"portable", Isa::portable, &cpu::portable_integer_kernel}};
#if defined(__x86_64__)
  if (cpu::supported(Isa::avx2)) list.push_back({"avx2", Isa::avx2, &cpu::avx2_integer_kernel});
  if (cpu::has_vnni(Isa::avx2)) list.push_back({"avxvnni", Isa::avx2, &cpu::avxvnni_integer_kernel});
  if (cpu::supported(Isa::avx512)) list.push_back({"avx512", Isa::avx512, &cpu::avx512_integer_kernel});
  if (cpu::has_vnni(Isa::avx512)) list.push_back({"avx512vnni", Isa::avx512, &cpu::avx512vnni_integer_kernel});
#endif
  return list;
}

std::unique_ptr<Weight> pack(const Kernel& kernel, std::span<const HostTensor> parts, const WeightForm& form = {}) {
  ThreadPool pool(2);
  return cpu::pack_weight(pool, parts, form, kernel.isa, DType::bf16, {true, kernel.integer});
}

/// An input as the definition rounds it (integer/kernel.hpp): scale * code, and what scales and codes were.
std::vector<double> rounded(const Matrix& in, std::int64_t row, const Leaves& leaves) {
  std::vector<double> values;
  for (std::int64_t k = 0; k < in.cols;) {
    const std::int64_t leaf_end = leaves.empty() ? in.cols : *std::ranges::upper_bound(leaves, k);
    const std::int64_t end = std::min(leaf_end, k / 32 * 32 + 32);
    float largest = 0;
    for (std::int64_t i = k; i < end; ++i) largest = std::max(largest, std::abs(static_cast<float>(in.get(row, i))));
    for (; k < end; ++k) {
      if (largest < 0x1p-119f) {
        values.push_back(0);
        continue;
      }
      const float code = std::nearbyint(static_cast<float>(in.get(row, k)) * (127.0f / largest));
      values.push_back(double{largest / 127.0f} * code);
    }
  }
  return values;
}

/// Expects a product of all rows to be, but for the rounding of its sums, that of the rounded input and `blocks`.
void check_values(const Kernel& kernel, const Blocks& blocks, Matrix& in, const Leaves& leaves) {
  const HostTensor host = blocks.host();
  const auto weight = pack(kernel, {&host, 1}, WeightForm(PackKind::stacked, leaves));
  CHECK(weight->size().native == weight->bytes());
  ThreadPool pool(1);
  Matrix out(in.rows, blocks.rows, blocks.rows, DType::f32);
  cpu::matmul(pool, out.view(), in.view(), *weight, {});
  std::vector<float> numbers(static_cast<std::size_t>(blocks.k));
  bool close = true;
  for (std::int64_t n = 0; n < blocks.rows; ++n) {
    to_f32(host, n * blocks.k, numbers);
    for (std::int64_t m = 0; m < in.rows; ++m) {
      const std::vector<double> x = rounded(in, m, leaves);
      double sum = 0, size = 0;
      for (std::size_t k = 0; k < numbers.size(); ++k) {
        sum += x[k] * double{numbers[k]};
        size += std::abs(x[k] * double{numbers[k]});
      }
      // Scale and minimum may cancel in a number; what was rounded is then up to 64 times as large as the number. A sum
      // is rounded some 30 times.
      close = close && std::abs(out.f32[out.at(m, n)] - sum) <= 64 * 30 * 0x1p-24 * size;
    }
  }
  CHECK(close);
}

const Leaves kLeaves[]{{}, {32, 160, 192, 480, 768}, {40, 80, 100, 130, 131, 768}};

}  // namespace

TEST_CASE("integer products of every format and instruction set are those of the rounded input, whatever the leaves") {
  std::mt19937 random(81);
  for (const Kernel& kernel : kernels())
    for (const DType format : kIntegers)
      for (const Leaves& leaves : kLeaves) {
        CAPTURE(kernel.name);
        CAPTURE(info(format).name);
        const Blocks blocks = random_blocks(format, 37, 768, random);
        Matrix in = Matrix::random(3, 768, 771, DType::bf16, random);
        for (std::int64_t k = 0; k < 768; ++k) {
          in.set(1, k, k / 32 % 3 == 0 ? 0.0f : static_cast<float>(in.get(1, k)) * 1e-36f);
          in.set(2, k, k % 2 == 0 ? 3.0f : -3.0f);  // sums that are as large as they get
        }
        check_values(kernel, blocks, in, leaves);
      }
}

TEST_CASE("codes and inputs at their ends do not overflow, -128 included") {
  for (const Kernel& kernel : kernels())
    for (const DType format : kIntegers)
      for (const int fill : {0x00, 0xff, 0x80, 0x7f}) {  // of Q8_0: 0, -1, -128, 127
        CAPTURE(kernel.name);
        CAPTURE(info(format).name);
        CAPTURE(fill);
        Blocks blocks{format, 5, 256, {}};
        blocks.bytes.assign(bytes_of(format, 5 * 256), static_cast<std::uint8_t>(fill));
        for (std::size_t block = 0; block < blocks.bytes.size(); block += info(format).block_bytes)
          for (const std::size_t at : halves_of(format)) {
            blocks.bytes[block + at] = 1;
            blocks.bytes[block + at + 1] = 0x24;
          }
        if (format >= DType::int4_g32) set_scales(blocks, 45.0f / 4096.0f);
        std::mt19937 random(82);
        Matrix in = Matrix::random(4, 256, 256, DType::bf16, random);
        for (std::int64_t k = 0; k < 256; ++k) {
          in.set(0, k, 1.0f);
          in.set(1, k, -1.0f);
          in.set(2, k, k % 4 < 2 ? 1.0f : -1.0f);
        }
        check_values(kernel, blocks, in, {});
      }
}

// rule: cpu.integer-bits-are-one
TEST_CASE("an integer product has one result: on every instruction set, in every batch, with any threads") {
  std::mt19937 random(83);
  ThreadPool one(1), three(3);
  const std::vector<Kernel> all = kernels();
  const std::int64_t k = 768, n = 75, rows = 41;
  for (const DType format : kIntegers)
    for (const bool wild : {false, true})
      for (const Leaves& leaves : kLeaves)
        for (const Kind kind : {Kind::store, Kind::accumulate}) {
          if (wild && kind == Kind::accumulate) continue;
          CAPTURE(info(format).name);
          const Blocks blocks = random_blocks(format, n, k, random, wild);
          const HostTensor host = blocks.host();
          Matrix in = Matrix::random(rows, k, k + 3, DType::bf16, random), expected(rows, n, n, DType::f32);
          const Matrix before = Matrix::random(rows, n, n, DType::f32, random);
          for (const Kernel& kernel : all) {
            CAPTURE(kernel.name);
            const auto weight = pack(kernel, {&host, 1}, WeightForm(PackKind::stacked, leaves));
            if (&kernel == all.data()) {
              expected.f32 = before.f32;
              cpu::matmul(one, expected.view(), in.view(), *weight, {kind, Activation::silu, nullptr});
            }
            for (const std::int64_t m : {1, 2, 5, 6, 19, 41})
              for (ThreadPool* pool : {&one, &three}) {
                CAPTURE(m);
                const std::int64_t first = rows - m;
                Matrix got = before;
                cpu::matmul(*pool, got.view().slice_rows(first, m), in.view().slice_rows(first, m), *weight,
                            {kind, Activation::silu, nullptr});
                bool same = true;
                for (std::size_t i = got.at(first, 0); i < got.f32.size(); ++i)
                  same = same && (std::memcmp(&got.f32[i], &expected.f32[i], sizeof(float)) == 0 ||
                                  (std::isnan(got.f32[i]) && std::isnan(expected.f32[i])));
                CHECK(same);
              }
          }
        }
}

TEST_CASE("ranges of leaves that are summed apart meet in the same bits: no scale of an input spans two") {
  std::mt19937 random(84);
  ThreadPool pool(2);
  const std::int64_t k = 256, n = 40;
  const Leaves ends{32, 96, 128, 224, 256};
  const Blocks blocks = random_blocks(DType::q5_1, n, k, random);
  const std::size_t bytes = info(blocks.dtype).block_bytes;
  Matrix in = Matrix::random(7, k, k, DType::bf16, random), whole(7, n, n, DType::f32);
  for (const Kernel& kernel : kernels()) {
    CAPTURE(kernel.name);
    const HostTensor host = blocks.host();
    cpu::matmul(pool, whole.view(), in.view(), *pack(kernel, {&host, 1}, WeightForm(PackKind::stacked, ends)), {});
    std::vector<std::vector<float>> sums;
    std::int64_t begin = 0;
    for (const std::int64_t end : ends) {
      Blocks part{blocks.dtype, n, end - begin, {}};
      for (std::int64_t row = 0; row < n; ++row) {
        const auto* from = blocks.bytes.data() + static_cast<std::size_t>((row * k + begin) / 32) * bytes;
        part.bytes.insert(part.bytes.end(), from, from + static_cast<std::size_t>((end - begin) / 32) * bytes);
      }
      const HostTensor of_part = part.host();
      Matrix out(7, n, n, DType::f32);
      cpu::matmul(pool, out.view(), in.view().slice_cols(begin, end - begin), *pack(kernel, {&of_part, 1}), {});
      sums.push_back(out.f32);
      begin = end;
    }
    std::vector<float> tree(whole.f32.size());
    const std::vector<std::span<const float>> values(sums.begin(), sums.end());
    combine(std::vector<TreeNode>{{0, 0}, {0, 1}, {0, 2}, {0, 3}, {0, 4}}, values, 5, tree);
    CHECK(std::memcmp(tree.data(), whole.f32.data(), tree.size() * sizeof(float)) == 0);
  }
}

TEST_CASE("inputs that are not finite give NaN in their row and nowhere else") {
  std::mt19937 random(85);
  ThreadPool pool(2);
  const Blocks blocks = random_blocks(DType::q6_k, 33, 256, random);
  const HostTensor host = blocks.host();
  for (const Kernel& kernel : kernels()) {
    CAPTURE(kernel.name);
    const auto weight = pack(kernel, {&host, 1});
    Matrix in = Matrix::random(9, 256, 256, DType::bf16, random), out(9, 33, 33, DType::f32), clean = out;
    cpu::matmul(pool, clean.view(), in.view(), *weight, {});
    in.set(2, 77, std::numeric_limits<float>::infinity());
    in.set(5, 255, std::numeric_limits<float>::quiet_NaN());
    in.bf16[in.at(5, 255)] = 0x7fc0;
    cpu::matmul(pool, out.view(), in.view(), *weight, {});
    for (std::int64_t row = 0; row < 9; ++row)
      for (std::int64_t n = 0; n < 33; ++n)
        if (row == 2 || row == 5)
          CHECK(std::isnan(out.f32[out.at(row, n)]));
        else
          CHECK(out.f32[out.at(row, n)] == clean.f32[out.at(row, n)]);
  }
}

TEST_CASE("rows of a table of codes are the numbers of the file, to the last bit") {
  std::mt19937 random(86);
  for (const Kernel& kernel : kernels())
    for (const DType format : kIntegers) {
      CAPTURE(kernel.name);
      CAPTURE(info(format).name);
      const Blocks blocks = random_blocks(format, 37, 512, random);
      const HostTensor host = blocks.host();
      const auto weight = pack(kernel, {&host, 1});
      std::vector<float> row(512), expected(512);
      for (std::int64_t r = 0; r < 37; ++r) {
        cpu::unpack_row(*weight, r, row.data());
        to_f32(host, r * 512, expected);
        CHECK(row == expected);
      }
    }
}

TEST_CASE("what is in no block format is computed in bf16 beside codes, with the bits of a dense weight") {
  std::mt19937 random(87);
  ThreadPool two(2);
  for (const Kernel& kernel : kernels()) {
    CAPTURE(kernel.name);
    // 64 rows are whole panels on every instruction set; the others share one with the next.
    const Blocks q = random_blocks(DType::q4_k, 64, 256, random), k = random_blocks(DType::q4_0, 33, 256, random);
    const Matrix last = Matrix::random(70, 256, 256, DType::f32, random);
    const HostTensor parts[]{q.host(), k.host(), last.host()};
    const auto weight = pack(kernel, parts);
    const auto dense = cpu::pack_weight(two, parts, PackKind::stacked, kernel.isa, DType::bf16);
    const PackedSize planned =
        cpu::packed_weight_size(parts, PackKind::stacked, kernel.isa, DType::bf16, {true, kernel.integer});
    CHECK(weight->size().bytes == planned.bytes);
    CHECK(weight->size().native == planned.native);
    CHECK(weight->size().native > 0);
    CHECK(weight->size().native < weight->bytes());
    Matrix in = Matrix::random(40, 256, 256, DType::bf16, random), a(40, 167, 167, DType::f32), b = a,
           of_q(40, 64, 64, DType::f32);
    cpu::matmul(two, of_q.view(), in.view(), *pack(kernel, std::span(parts).first(1)), {});
    for (const std::int64_t m : {1, 40}) {
      cpu::matmul(two, a.view().head(m), in.view().head(m), *dense, {});
      cpu::matmul(two, b.view().head(m), in.view().head(m), *weight, {});
      for (std::int64_t row = 0; row < m; ++row) {
        CHECK(std::memcmp(&b.f32[b.at(row, 0)], &of_q.f32[of_q.at(row, 0)], 64 * sizeof(float)) == 0);
        CHECK(std::memcmp(&b.f32[b.at(row, 97)], &a.f32[a.at(row, 97)], 70 * sizeof(float)) == 0);
      }
    }
  }
}

TEST_CASE("an input that is cut because its integers take much memory") {
  std::mt19937 random(88);
  ThreadPool two(2);
  const std::int64_t k = 16384, rows = 400;  // 24 KiB of integers a row
  const Blocks blocks = random_blocks(DType::q8_0, 16, k, random);
  const HostTensor host = blocks.host();
  const Kernel kernel = kernels().back();
  const auto weight = pack(kernel, {&host, 1});
  Matrix in = Matrix::random(rows, k, k, DType::bf16, random), out(rows, 16, 16, DType::f32), one = out;
  cpu::matmul(two, out.view(), in.view(), *weight, {});
  for (std::int64_t row = 0; row < rows; ++row)
    cpu::matmul(two, one.view().slice_rows(row, 1), in.view().slice_rows(row, 1), *weight, {});
  CHECK(std::memcmp(out.f32.data(), one.f32.data(), one.f32.size() * sizeof(float)) == 0);
}
