#include "cpu/matmul/matmul.hpp"

#include <algorithm>

#include "backend/checks.hpp"
#include "base/text.hpp"
#include "cpu/matmul/layout.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore::cpu {
namespace {

constexpr std::int64_t kStreamBytes = 128 << 10;   // weights that one worker reads in one go when rows are few
constexpr std::int64_t kWidenedBytes = 512 << 10;  // of weights in the compute type that stay in L2 for many rows
constexpr std::int64_t kInlineOps = 1 << 17;       // multiply-adds that take less time than waking a worker

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
    const std::int64_t stored = static_cast<std::int64_t>(weight.bytes()) / all;  // of a panel, on average
    const std::int64_t most = std::max<std::int64_t>(1, bytes / (m <= tile ? stored : weight.layout().panel_bytes));
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

/// The address that panel 0 would have where panel `panel` lies at `at`: kernels count panels from the weight's first.
const void* before(const std::byte* at, std::int64_t panel, std::int64_t panel_bytes) {
  return reinterpret_cast<const void*>(reinterpret_cast<std::uintptr_t>(at) -
                                       static_cast<std::uintptr_t>(panel * panel_bytes));
}

/// Runs a kernel on blocks of a weight whose panels may be kept in several ways.
class BlockRunner {
 public:
  BlockRunner(const PackedWeight& weight, const MatmulArgs& args) : weight_(weight), args_(args) {
    const bool native = weight.size().native > 0;
    in_kernel_ = weight.kernel().widens && args.m <= weight.kernel().rows;
    if (native && !in_kernel_) widened_panels_ = std::max<std::int64_t>(1, kWidenedBytes / weight.layout().panel_bytes);
  }

  /// Bytes for dense panels, a multiple of 64.
  std::int64_t scratch_bytes() const { return widened_panels_ * weight_.layout().panel_bytes; }

  /// `next_panel`: where the block begins that this worker is likely to get next.
  void operator()(const MatmulBlock& block, std::int64_t next_panel, std::byte* scratch, std::byte* widened) const {
    for (const PanelRun& run : weight_.layout().runs) {
      MatmulBlock part = block;
      part.first_panel = std::max(block.first_panel, run.first);
      part.end_panel = std::min(block.end_panel, run.end);
      if (part.first_panel >= part.end_panel) continue;
      if (run.format != nullptr && !in_kernel_) {
        widen(run, part, next_panel, scratch, widened);
        continue;
      }
      MatmulArgs args = args_;
      args.weights = before(weight_.panel(run.first), run.first, run.panel_bytes);
      args.panel_bytes = run.panel_bytes;
      if (run.format != nullptr) args.widen = widen_of(*run.format, weight_.isa(), weight_.dtype());
      weight_.kernel().run(args, part, scratch);
    }
  }

 private:
  /// Many rows: panels are widened into memory that stays in L2, once for all rows of the block.
  void widen(const PanelRun& run, const MatmulBlock& block, std::int64_t next_panel, std::byte* scratch,
             std::byte* widened) const {
    const WidenFunction function = widen_of(*run.format, weight_.isa(), weight_.dtype());
    MatmulArgs args = args_;
    args.panel_bytes = weight_.layout().panel_bytes;
    MatmulBlock part = block;
    for (; part.first_panel < block.end_panel; part.first_panel = part.end_panel) {
      part.end_panel = std::min(part.first_panel + widened_panels_, block.end_panel);
      for (std::int64_t panel = part.first_panel; panel < part.end_panel; ++panel)
        function(reinterpret_cast<const unsigned char*>(weight_.panel(panel)), 0, args.k / kGroup,
                 widened + (panel - part.first_panel) * args.panel_bytes);
      const std::int64_t next = part.end_panel < block.end_panel ? part.end_panel : next_panel;
      args.ahead = next < run.end ? reinterpret_cast<const unsigned char*>(weight_.panel(next)) : nullptr;
      args.ahead_bytes = std::clamp<std::int64_t>(run.end - next, 0, widened_panels_) * run.panel_bytes;
      args.weights = before(widened, part.first_panel, args.panel_bytes);
      weight_.kernel().run(args, part, scratch);
    }
  }

  const PackedWeight& weight_;
  const MatmulArgs& args_;
  bool in_kernel_ = false;
  std::int64_t widened_panels_ = 0;
};

}  // namespace

void matmul(ThreadPool& pool, Scratch& scratch, const Tensor& out, const Tensor& in, const Weight& any_weight,
            const Epilogue& epilogue) {
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
  args.out = out.data;
  args.out_stride = out.stride;
  args.n = weight.n();
  args.bias = epilogue.bias == nullptr ? nullptr : static_cast<const float*>(epilogue.bias->data);
  args.finish = static_cast<Finish>(epilogue.kind);
  args.activation = static_cast<ActivationFunction>(epilogue.activation);
  args.out_is_bf16 = out.dtype == DType::bf16;

  // Workers cannot fail, so their scratch is allocated before they start.
  const BlockRunner runner(weight, args);
  const std::int64_t kernel_bytes = kernel.scratch_bytes(args), scratch_bytes = kernel_bytes + runner.scratch_bytes();
  if (scratch_bytes != 0 && !scratch.reserve(pool.threads(), static_cast<std::size_t>(scratch_bytes)))
    throw OutOfMemory(str("no memory for ", scratch_bytes, " bytes of matmul scratch for each of ", pool.threads(),
                          " threads; free memory"));

  const Partition partition(args.m, weight, pool.threads());
  pool.for_each(partition.count(), [&](std::int64_t i, int worker) {
    const std::int64_t panel = i / partition.row_groups * partition.panels;
    const std::int64_t row = i % partition.row_groups * partition.rows;
    const MatmulBlock block{row, std::min(row + partition.rows, args.m), panel,
                            std::min(panel + partition.panels, layout.panels)};
    std::byte* const own = scratch_bytes == 0 ? nullptr : scratch.of(worker);
    const std::int64_t next = (i + pool.threads()) / partition.row_groups * partition.panels;
    runner(block, next, own, own + kernel_bytes);
  });
}

}  // namespace pagedcore::cpu
