#include "cpu/matmul/product.hpp"

#include <algorithm>
#include <numeric>

namespace pagedcore::cpu {
namespace {

constexpr std::int64_t kStreamBytes = 128 << 10;   // weights that one worker reads in one go when rows are few
constexpr std::int64_t kWidenedBytes = 512 << 10;  // of weights in the compute type that stay in L2 for many rows
constexpr std::int64_t kInlineOps = 1 << 17;       // multiply-adds that take less time than waking a worker

constexpr std::int64_t kFewTiles = 3;  // of rows, for which integer products expand weights in the kernel

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }
std::int64_t round_up(std::int64_t a, std::int64_t b) { return ceil_div(a, b) * b; }

/// The address that panel 0 would have where panel `panel` lies at `at`: kernels count panels from the weight's first.
const void* before(const std::byte* at, std::int64_t panel, std::int64_t panel_bytes) {
  return reinterpret_cast<const void*>(reinterpret_cast<std::uintptr_t>(at) -
                                       static_cast<std::uintptr_t>(panel * panel_bytes));
}

/// Whether panels are widened, or expanded, in the kernel: where few rows read them.
bool few_rows(std::int64_t m, const PackedWeight& weight) {
  if (weight.integer() != nullptr) return m <= kFewTiles * weight.integer()->rows;
  return m <= weight.kernel().rows;
}

}  // namespace

MatmulArgs product_args(const Tensor& in, const PackedWeight& weight) {
  MatmulArgs args;
  args.in = in.data;
  args.in_stride = in.stride;
  args.m = in.rows;
  args.k = weight.k();
  args.k_padded = weight.layout().k_padded;
  args.leaves = weight.layout().leaves.data();
  args.num_leaves = static_cast<std::int64_t>(weight.layout().leaves.size());
  args.n = weight.n();
  return args;
}

Partition::Partition(std::int64_t m, const PackedWeight& weight, int threads)
    : panels(weight.layout().panels), rows(m) {
  std::int64_t tile = weight.kernel().rows;
  if (weight.integer() != nullptr) tile = std::lcm(tile, weight.integer()->rows);
  const std::int64_t all = panels;
  const bool few = few_rows(m, weight);
  if (threads > 1 && m * weight.n() * weight.k() <= kInlineOps) threads = 1;
  const std::int64_t bytes = few ? kStreamBytes : weight.kernel().block_bytes;
  const std::int64_t stored = static_cast<std::int64_t>(weight.bytes()) / all;  // of a panel, on average
  const std::int64_t most = std::max<std::int64_t>(1, bytes / (few ? stored : weight.layout().panel_bytes));
  panel_groups = threads == 1 ? ceil_div(all, most) : std::min(all, round_up(ceil_div(all, most), threads));
  panels = ceil_div(all, panel_groups);
  panel_groups = ceil_div(all, panels);
  if (panel_groups < threads) {  // too narrow to share by columns alone
    rows = std::max(tile, round_up(ceil_div(m * panel_groups, threads), tile));
    row_groups = ceil_div(m, rows);
  }
}

MatmulBlock Partition::block(std::int64_t i, std::int64_t m, const PackedWeight& weight) const {
  const std::int64_t panel = i / row_groups * panels, row = i % row_groups * rows;
  return {row, std::min(row + rows, m), panel, std::min(panel + panels, weight.layout().panels)};
}

BlockRunner::BlockRunner(const PackedWeight& weight, const MatmulArgs& args, const MatmulArgs& integer)
    : weight_(weight),
      args_(args),
      integer_(integer),
      few_(few_rows(args.m, weight)),
      kernel_bytes_(weight.kernel().scratch_bytes(args)) {
  const bool widened = std::ranges::any_of(weight.layout().runs, [&](const PanelRun& run) { return !in_kernel(run); });
  if (widened) widened_bytes_ = std::max(kWidenedBytes, weight.layout().panel_bytes) / 64 * 64;
}

/// Whether the kernel takes panels of `run` as they are.
bool BlockRunner::in_kernel(const PanelRun& run) const {
  if (run.format == nullptr) return true;
  return few_ && (run.integer || (weight_.kernel().widens && args_.m <= weight_.kernel().rows));
}

WidenFunction BlockRunner::widen_of(const PanelRun& run) const {
  if (run.integer) return product_of(*weight_.integer(), *run.format).expand;
  return cpu::widen_of(*run.format, weight_.isa(), weight_.dtype());
}

void BlockRunner::compute(const PanelRun& run, const MatmulArgs& args, const MatmulBlock& block,
                          std::byte* scratch) const {
  if (run.integer)
    product_of(*weight_.integer(), *run.format).run(args, block);
  else
    weight_.kernel().run(args, block, scratch);
}

void BlockRunner::operator()(const MatmulBlock& block, std::int64_t next_panel, std::byte* scratch) const {
  for (const PanelRun& run : weight_.layout().runs) {
    MatmulBlock part = block;
    part.first_panel = std::max(block.first_panel, run.first);
    part.end_panel = std::min(block.end_panel, run.end);
    if (part.first_panel >= part.end_panel) continue;
    if (!in_kernel(run)) {
      widen(run, part, next_panel, scratch);
      continue;
    }
    MatmulArgs args = run.integer ? integer_ : args_;
    args.weights = before(weight_.panel(run.first), run.first, run.panel_bytes);
    args.panel_bytes = run.panel_bytes;
    if (run.format != nullptr) args.widen = widen_of(run);
    compute(run, args, part, scratch);
  }
}

/// Many rows: panels are widened into memory that stays in L2, once for all rows of the block.
void BlockRunner::widen(const PanelRun& run, const MatmulBlock& block, std::int64_t next_panel,
                        std::byte* scratch) const {
  const WidenFunction function = widen_of(run);
  std::byte* const widened = scratch + kernel_bytes_;
  MatmulArgs args = run.integer ? integer_ : args_;
  args.panel_bytes = weight_.layout().panel_bytes;
  if (run.integer) args.panel_bytes = args.k / kGroup * product_of(*weight_.integer(), *run.format).expanded_bytes;
  const std::int64_t at_once = widened_bytes_ / args.panel_bytes;
  MatmulBlock part = block;
  for (; part.first_panel < block.end_panel; part.first_panel = part.end_panel) {
    part.end_panel = std::min(part.first_panel + at_once, block.end_panel);
    for (std::int64_t panel = part.first_panel; panel < part.end_panel; ++panel)
      function(reinterpret_cast<const unsigned char*>(weight_.panel(panel)), 0, args.k / kGroup,
               widened + (panel - part.first_panel) * args.panel_bytes);
    const std::int64_t next = part.end_panel < block.end_panel ? part.end_panel : next_panel;
    args.ahead = next < run.end ? reinterpret_cast<const unsigned char*>(weight_.panel(next)) : nullptr;
    args.ahead_bytes = std::clamp<std::int64_t>(run.end - next, 0, at_once) * run.panel_bytes;
    args.weights = before(widened, part.first_panel, args.panel_bytes);
    compute(run, args, part, scratch);
  }
}

}  // namespace pagedcore::cpu
