#include "cpu/matmul/matmul.hpp"

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
              static_cast<int>(ActivationFunction::relu) == static_cast<int>(Activation::relu));

}  // namespace

void matmul(ThreadPool& pool, Scratch& scratch, const Tensor& out, const Tensor& in, const Weight& any_weight,
            const Epilogue& epilogue) {
  const auto& weight = static_cast<const PackedWeight&>(any_weight);
  check_matmul(out, in, weight, weight.kind(), weight.dtype(), DType::bf16, epilogue);
  if (in.rows == 0) return;

  MatmulArgs args = product_args(in, weight);
  args.out = out.data;
  args.out_stride = out.stride;
  args.bias = epilogue.bias == nullptr ? nullptr : static_cast<const float*>(epilogue.bias->data);
  args.finish = static_cast<Finish>(epilogue.kind);
  args.activation = static_cast<ActivationFunction>(epilogue.activation);
  args.out_is_bf16 = out.dtype == DType::bf16;
  if (epilogue.row_scale != nullptr) {
    args.rows.scale = static_cast<const float*>(epilogue.row_scale->data);
    args.rows.scale_stride = epilogue.row_scale->stride;
  }

  // Workers cannot fail, so their scratch is allocated before they start.
  const BlockRunner runner(weight, args);
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

}  // namespace pagedcore::cpu
