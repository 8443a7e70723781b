#include "cpu/matmul/matmul.hpp"

#include <algorithm>

#include "backend/checks.hpp"
#include "base/text.hpp"
#include "cpu/matmul/product.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore::cpu {
namespace {

static_assert(static_cast<int>(Finish::gated) == static_cast<int>(Epilogue::Kind::gated) &&
              static_cast<int>(Finish::activated) == static_cast<int>(Epilogue::Kind::activated) &&
              static_cast<int>(Finish::accumulate) == static_cast<int>(Epilogue::Kind::accumulate));
static_assert(static_cast<int>(ActivationFunction::gelu) == static_cast<int>(Activation::gelu) &&
              static_cast<int>(ActivationFunction::gelu_tanh) == static_cast<int>(Activation::gelu_tanh) &&
              static_cast<int>(ActivationFunction::relu) == static_cast<int>(Activation::relu) &&
              static_cast<int>(ActivationFunction::clamped_swiglu) == static_cast<int>(Activation::clamped_swiglu));

constexpr std::int64_t kPrepareElements = 1 << 14;  // of an input that one worker turns into integers in one go
constexpr std::int64_t kPreparedBytes = 4 << 20;    // of an input in integers; it is cut by rows where it takes more
constexpr std::int64_t kLeastRows = 192;            // of such a piece

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

/// The input in integers: rows are shared out to the workers by tiles.
MatmulArgs prepare_input(ThreadPool& pool, Scratch& scratch, const MatmulArgs& dense, const PackedWeight& weight) {
  MatmulArgs args = dense;
  args.leaves = weight.layout().input_groups.data();
  args.k_padded = weight.layout().input_groups.back().padded_end;
  const IntegerKernel& kernel = *weight.integer();
  const std::int64_t bytes = args.m * (args.k_padded / kGroup) * static_cast<std::int64_t>(sizeof(InputGroup));
  if (!scratch.reserve_shared(static_cast<std::size_t>(ceil_div(bytes, 64) * 64)))
    throw OutOfMemory(str("no memory for ", bytes, " bytes of an input in integers; free memory"));
  auto* const groups = reinterpret_cast<InputGroup*>(scratch.shared());
  const std::int64_t most = std::max<std::int64_t>(1, kPrepareElements / args.k / kernel.rows);  // tiles at a time
  const std::int64_t rows = most * kernel.rows;
  pool.for_each(ceil_div(args.m, rows),
                [&](std::int64_t i, int) { kernel.prepare(args, i * rows, std::min((i + 1) * rows, args.m), groups); });
  args.in = groups;
  return args;
}

/// Most rows at a time: where inputs become integers, so many that these stay in a cache.
std::int64_t rows_at_once(std::int64_t m, const PackedWeight& weight) {
  if (weight.integer() == nullptr) return std::max<std::int64_t>(m, 1);
  const std::int64_t row =
      weight.layout().input_groups.back().padded_end / kGroup * static_cast<std::int64_t>(sizeof(InputGroup));
  return std::max<std::int64_t>(kLeastRows, kPreparedBytes / row);
}

/// As matmul, of arguments that fit.
void multiply(ThreadPool& pool, Scratch& scratch, const Tensor& out, const Tensor& in, const PackedWeight& weight,
              const Epilogue& epilogue) {
  MatmulArgs args = product_args(in, weight);
  args.out = out.data;
  args.out_stride = out.stride;
  args.bias = epilogue.bias == nullptr ? nullptr : static_cast<const float*>(epilogue.bias->data);
  args.finish = static_cast<Finish>(epilogue.kind);
  args.activation = static_cast<ActivationFunction>(epilogue.activation);
  args.out_is_bf16 = out.dtype == DType::bf16;
  args.rows.swiglu_alpha = epilogue.swiglu.alpha;
  args.rows.swiglu_limit = epilogue.swiglu.limit;
  if (epilogue.row_scale != nullptr) {
    args.rows.scale = static_cast<const float*>(epilogue.row_scale->data);
    args.rows.scale_stride = epilogue.row_scale->stride;
  }

  // Workers cannot fail, so their scratch is allocated before they start.
  const MatmulArgs integer = weight.integer() == nullptr ? args : prepare_input(pool, scratch, args, weight);
  const BlockRunner runner(weight, args, integer);
  const std::int64_t scratch_bytes = runner.scratch_bytes();
  if (scratch_bytes != 0 && !scratch.reserve(pool.threads(), static_cast<std::size_t>(scratch_bytes)))
    throw OutOfMemory(str("no memory for ", scratch_bytes, " bytes of matmul scratch for each of ", pool.threads(),
                          " threads; free memory"));

  const Partition partition(args.m, weight, pool.threads());
  pool.for_each(partition.count(), [&](std::int64_t i, int worker) {
    const std::int64_t next = (i + pool.threads()) / partition.row_groups * partition.panels;
    runner(partition.block(i, args.m, weight), next, scratch_bytes == 0 ? nullptr : scratch.of(worker));
  });
}

}  // namespace

void matmul(ThreadPool& pool, Scratch& scratch, const Tensor& out, const Tensor& in, const Weight& any_weight,
            const Epilogue& epilogue) {
  const auto& weight = static_cast<const PackedWeight&>(any_weight);
  check_matmul(out, in, weight, weight.kind(), weight.dtype(), DType::bf16, epilogue);
  const std::int64_t rows = rows_at_once(in.rows, weight);
  for (std::int64_t first = 0; first < in.rows; first += rows) {
    const std::int64_t count = std::min(rows, in.rows - first);
    Tensor scales;
    Epilogue part = epilogue;
    if (epilogue.row_scale != nullptr && rows < in.rows) {
      scales = epilogue.row_scale->slice_rows(first, count);
      part.row_scale = &scales;
    }
    multiply(pool, scratch, out.slice_rows(first, count), in.slice_rows(first, count), weight, part);
  }
}

}  // namespace pagedcore::cpu
