#include "cpu/matmul/matmul.hpp"

#include <algorithm>
#include <cstdlib>

#include "backend/checks.hpp"
#include "base/text.hpp"
#include "cpu/matmul/layout.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore::cpu {
namespace {

constexpr std::int64_t kStreamBytes = 128 << 10;  // weights that one worker reads in one go when rows are few
constexpr std::int64_t kInlineOps = 1 << 17;      // multiply-adds that take less time than waking a worker

static_assert(static_cast<int>(Finish::gated) == static_cast<int>(Epilogue::Kind::gated) &&
              static_cast<int>(Finish::activated) == static_cast<int>(Epilogue::Kind::activated) &&
              static_cast<int>(Finish::accumulate) == static_cast<int>(Epilogue::Kind::accumulate));
static_assert(static_cast<int>(ActivationFunction::gelu) == static_cast<int>(Activation::gelu) &&
              static_cast<int>(ActivationFunction::gelu_tanh) == static_cast<int>(Activation::gelu_tanh) &&
              static_cast<int>(ActivationFunction::relu) == static_cast<int>(Activation::relu));

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }
std::int64_t round_up(std::int64_t a, std::int64_t b) { return ceil_div(a, b) * b; }

/// The work cut into rectangles of panels x rows. Nothing here touches the order of any sum.
struct Partition {
  std::int64_t panels, rows;                      // extents of one rectangle
  std::int64_t panel_groups = 1, row_groups = 1;  // how many of them

  Partition(std::int64_t m, const PackedWeight& weight, int threads) : panels(weight.layout().panels), rows(m) {
    const std::int64_t all = panels, tile = weight.kernel().rows;
    if (threads > 1 && m * weight.n() * weight.k() <= kInlineOps) threads = 1;
    const std::int64_t bytes = m <= tile ? kStreamBytes : weight.kernel().block_bytes;
    const std::int64_t most = std::max<std::int64_t>(1, bytes / weight.layout().panel_bytes);
    panel_groups = threads == 1 ? ceil_div(all, most) : std::min(all, round_up(ceil_div(all, most), threads));
    panels = ceil_div(all, panel_groups);
    panel_groups = ceil_div(all, panels);
    if (panel_groups < threads) {  // too narrow to share by columns alone
      rows = std::max(tile, round_up(ceil_div(m * panel_groups, threads), tile));
      row_groups = ceil_div(m, rows);
    }
  }
  std::int64_t count() const { return panel_groups * row_groups; }
};

struct FreeDeleter {
  void operator()(void* p) const noexcept { std::free(p); }
};

}  // namespace

void matmul(ThreadPool& pool, const Tensor& out, const Tensor& in, const Weight& any_weight, const Epilogue& epilogue) {
  const auto& weight = static_cast<const PackedWeight&>(any_weight);
  check_matmul(out, in, weight, weight.kind(), weight.dtype(), DType::bf16, epilogue);
  if (in.rows == 0) return;
  const MatmulKernel& kernel = weight.kernel();
  const PackedLayout& layout = weight.layout();

  MatmulArgs args;
  args.in = in.data;
  args.in_stride = in.stride;
  args.m = in.rows;
  args.k = weight.k();
  args.k_padded = layout.k_padded;
  args.leaves = layout.leaves.data();
  args.num_leaves = static_cast<std::int64_t>(layout.leaves.size());
  args.weights = weight.panel(0);
  args.panel_bytes = layout.panel_bytes;
  args.out = out.data;
  args.out_stride = out.stride;
  args.n = weight.n();
  args.bias = epilogue.bias == nullptr ? nullptr : static_cast<const float*>(epilogue.bias->data);
  args.finish = static_cast<Finish>(epilogue.kind);
  args.activation = static_cast<ActivationFunction>(epilogue.activation);
  args.out_is_bf16 = out.dtype == DType::bf16;

  // Workers cannot fail, so their scratch is allocated before they start.
  const std::int64_t scratch_bytes = kernel.scratch_bytes(args);
  std::unique_ptr<void, FreeDeleter> scratch;
  if (scratch_bytes != 0) {
    const auto bytes = static_cast<std::size_t>(scratch_bytes) * static_cast<std::size_t>(pool.threads());
    scratch.reset(std::aligned_alloc(64, bytes));
    if (scratch == nullptr) throw OutOfMemory(str("no memory for ", bytes, " bytes of matmul scratch; free memory"));
  }

  const Partition partition(args.m, weight, pool.threads());
  pool.for_each(partition.count(), [&](std::int64_t i, int worker) {
    const std::int64_t panel = i / partition.row_groups * partition.panels;
    const std::int64_t row = i % partition.row_groups * partition.rows;
    const MatmulBlock block{row, std::min(row + partition.rows, args.m), panel,
                            std::min(panel + partition.panels, layout.panels)};
    kernel.run(args, block, static_cast<std::byte*>(scratch.get()) + worker * scratch_bytes);
  });
}

}  // namespace pagedcore::cpu
