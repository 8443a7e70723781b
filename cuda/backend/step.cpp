// The operations of a step: arguments checked, kernels enqueued.
#include <limits>

#include "backend/backend.hpp"
#include "backend/checks.hpp"
#include "base/text.hpp"
#include "kernels/copy.hpp"
#include "kernels/matmul.hpp"
#include "kernels/norm.hpp"
#include "kernels/rope_cache.hpp"
#include "kernels/rows.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore::cuda {
namespace {

const float* floats(const Tensor* t) { return t == nullptr ? nullptr : static_cast<const float*>(t->data); }

void check_stacked(const char* what, const CudaWeight& table) {
  if (table.spec().kind != PackKind::stacked) throw InvalidArgument(str(what, ": the table is a gated pair"));
  if (table.leaves().count > 1) throw InvalidArgument(str(what, ": the table has leaves of k; pack it without"));
}

EmbedArgs embed_args(const Tensor& out, const CudaBatch& batch, const CudaWeight& table) {
  EmbedArgs args;
  args.out = static_cast<float*>(out.data);
  args.out_stride = out.stride;
  args.weights = table.data();
  args.rows = static_cast<std::int32_t>(batch.rows());
  args.k = static_cast<std::int32_t>(table.k());
  return args;
}

void check_aligned(const char* what, const Tensor& t, std::int64_t elements) {
  const bool aligned = reinterpret_cast<std::uintptr_t>(t.data) % 16 == 0 && t.stride % elements == 0;
  if (!aligned)
    throw InvalidArgument(
        str(what, " is ", shape_text(t), "; it must begin at, and have rows of, a multiple of 16 bytes"));
}

}  // namespace

std::unique_ptr<Batch> CudaBackend::prepare(const BatchView& view, std::int32_t block_size) {
  device_.use();
  return std::make_unique<CudaBatch>(device_, *staging_, view, block_size);
}

void CudaBackend::run_step(const Batch& any_batch, const std::function<void()>& operations) {
  constexpr int kMostFailures = 3;  // then it is not worth trying
  const auto& batch = static_cast<const CudaBatch&>(any_batch);
  device_.use();
  if (batch.rows() == 0 || batch.rows() > graph_rows_ || failed_recordings_ >= kMostFailures) return operations();
  bool submitted = false;
  try {
    submitted = graphs_->run(operations);
  } catch (...) {
    batch.forget_shared();
    throw;
  }
  if (submitted) return;
  ++failed_recordings_;
  batch.forget_shared();
  operations();
}

void CudaBackend::embed(const Tensor& out, const Weight& weight, const Batch& any_batch, float scale) {
  const auto& batch = static_cast<const CudaBatch&>(any_batch);
  const auto& table = static_cast<const CudaWeight&>(weight);
  check_stacked("embed", table);
  check_embed(out, table, batch.host_tokens());
  EmbedArgs args = embed_args(out, batch, table);
  args.tokens = batch.tokens();
  args.scale = scale;
  device_.use();
  device_.check(launch_embed(args, dtype_, table.spec().format, device_.stream()), "embed");
}

void CudaBackend::embed_positions(const Tensor& out, const Weight& weight, const Batch& any_batch,
                                  std::int32_t offset) {
  const auto& batch = static_cast<const CudaBatch&>(any_batch);
  const auto& table = static_cast<const CudaWeight&>(weight);
  check_stacked("embed_positions", table);
  check_embed_positions(out, table, batch.host_positions(), offset);
  EmbedArgs args = embed_args(out, batch, table);
  args.tokens = batch.positions();
  args.first = offset;
  device_.use();
  device_.check(launch_embed(args, dtype_, table.spec().format, device_.stream()), "embed_positions");
}

void CudaBackend::add(const Tensor& x, const Tensor& y, float scale) {
  check_add(x, y);
  device_.use();
  AddArgs args;
  args.x = static_cast<float*>(x.data);
  args.y = floats(&y);
  args.x_stride = x.stride;
  args.y_stride = y.stride;
  args.rows = static_cast<std::int32_t>(x.rows);
  args.cols = static_cast<std::int32_t>(x.cols);
  args.scale = scale;
  device_.check(launch_add(args, device_.stream()), "add");
}

void CudaBackend::convert(const Tensor& out, const Tensor& in) {
  check_convert(out, in, dtype_);
  device_.use();
  ConvertArgs args;
  args.out = out.data;
  args.in = floats(&in);
  args.out_stride = out.stride;
  args.in_stride = in.stride;
  args.rows = static_cast<std::int32_t>(in.rows);
  args.cols = static_cast<std::int32_t>(in.cols);
  device_.check(launch_convert(args, out.dtype, device_.stream()), "convert");
}

void CudaBackend::norm(const Tensor& out, const Tensor& in, const Tensor& weight, const Tensor* bias,
                       const NormParams& p) {
  check_norm(out, in, weight, bias, dtype_);
  device_.use();
  NormArgs args;
  args.in = floats(&in);
  args.in_stride = in.stride;
  args.out = out.data;
  args.out_stride = out.stride;
  args.weight = floats(&weight);
  args.bias = floats(bias);
  args.rows = static_cast<std::int32_t>(in.rows);
  args.cols = static_cast<std::int32_t>(in.cols);
  args.params = p;
  device_.check(launch_norm(args, out.dtype, device_.stream()), "norm");
}

void CudaBackend::head_norm(const Tensor& x, std::int32_t head_dim, const Tensor& weight, const Tensor* bias,
                            const NormParams& p) {
  const bool shared = check_head_norm(x, head_dim, weight, bias);
  device_.use();
  HeadNormArgs args;
  args.x = static_cast<float*>(x.data);
  args.stride = x.stride;
  args.weight = floats(&weight);
  args.bias = floats(bias);
  args.own_weights = !shared;
  args.rows = static_cast<std::int32_t>(x.rows);
  args.heads = static_cast<std::int32_t>(x.cols / head_dim);
  args.head_dim = head_dim;
  args.params = p;
  device_.check(launch_head_norm(args, device_.stream()), "head_norm");
}

void CudaBackend::matmul(const Tensor& out, const Tensor& in, const Weight& any_weight, const Epilogue& epilogue) {
  const auto& weight = static_cast<const CudaWeight&>(any_weight);
  check_compute("matmul: the input", in);
  check_matmul(out, in, weight, weight.spec().kind, dtype_, dtype_, epilogue);
  if (epilogue.row_scale != nullptr) throw Unsupported("matmul: rows are not scaled on this device");
  if (epilogue.activation == Activation::clamped_swiglu && epilogue.kind == Epilogue::Kind::gated)
    throw Unsupported("matmul: no kernel here has clamped_swiglu; use device cpu");
  device_.use();
  MatmulArgs args;
  args.in = in.data;
  args.in_stride = in.stride;
  args.m = static_cast<std::int32_t>(in.rows);
  args.k = static_cast<std::int32_t>(weight.k());
  args.n = static_cast<std::int32_t>(weight.n());
  args.weights = weight.data();
  args.bias = floats(epilogue.bias);
  args.out = out.data;
  args.out_stride = out.stride;
  args.out_is_narrow = out.dtype != DType::f32;
  args.finish = epilogue.kind;
  args.activation = epilogue.activation;
  args.leaves = weight.leaves();
  if (weight.spec().format == WeightFormat::plain) return cublas_lt_->multiply(args);
  args.block_tiles = choose_block_tiles(args, weight.spec().format, device_.multiprocessors());
  device_.check(launch_matmul(args, dtype_, weight.spec().format, device_.stream()), "matmul");
}

void CudaBackend::rope_and_cache(const Tensor& q, const Tensor& qkv, KvStorage& storage, std::int32_t layer,
                                 const Batch& any_batch, const AttentionShape& shape, const RopeParams& rope) {
  const auto& kv = static_cast<const CudaKvStorage&>(storage);
  const auto& batch = static_cast<const CudaBatch&>(any_batch);
  check_compute("rope_and_cache: q", q);
  check_layer_call(kv, batch.facts(), layer, shape);
  check_rope_and_cache(q, qkv, batch.rows(), shape, rope, dtype_);
  check_aligned("rope_and_cache: q", q, 8);
  check_aligned("rope_and_cache: qkv", qkv, 4);
  device_.use();
  RopeCacheArgs args;
  args.compute = compute();
  args.q = q.data;
  args.qkv = floats(&qkv);
  args.q_stride = q.stride;
  args.qkv_stride = qkv.stride;
  args.kv = kv.layer(layer);
  args.num_heads = shape.num_heads;
  args.tables = batch.tables(shape.layer_group);
  args.row_tables = batch.row_tables();
  args.positions = batch.positions();
  args.rows = static_cast<std::int32_t>(batch.rows());
  if (rope.inv_freq != nullptr) {
    const CudaBatch::Rotary& rotary = batch.rotary(rope);
    args.cos = rotary.cos();
    args.sin = rotary.sin(batch.rows());
    args.num_frequencies = static_cast<std::int32_t>(rotary.num_frequencies);
  }
  device_.check(launch_rope_and_cache(args, device_.stream()), "rope_and_cache");
}

void CudaBackend::attention(const Tensor& out, const Tensor& q, const KvStorage& storage, std::int32_t layer,
                            const Batch& any_batch, const AttentionParams& p) {
  const auto& kv = static_cast<const CudaKvStorage&>(storage);
  const auto& batch = static_cast<const CudaBatch&>(any_batch);
  if (p.bidirectional) throw Unsupported("attention: no kernel here lets a row see the tokens behind it");
  if (p.sinks != nullptr) throw Unsupported("attention: no kernel here has sinks");
  check_compute("attention: the output", out);
  check_compute("attention: q", q);
  check_layer_call(kv, batch.facts(), layer, p.shape);
  check_attention(out, q, batch.rows(), p, dtype_);
  check_aligned("attention: the output", out, 8);
  check_aligned("attention: q", q, 8);
  if (batch.rows() == 0) return;
  device_.use();
  AttentionArgs args = batch.work(p.shape, p.window, sizes_.step_workspace() / 2).args;
  args.compute = compute();
  args.out = out.data;
  args.q = q.data;
  args.out_stride = out.stride;
  args.q_stride = q.stride;
  args.kv = kv.layer(layer);
  args.num_heads = p.shape.num_heads;
  args.scale = p.scale;
  args.softcap = p.softcap;
  args.window = p.window;
  args.alibi = floats(p.alibi);
  device_.check(launch_attention(args, device_.stream()), "attention");
}

void CudaBackend::gather_rows(const Tensor& out, const Tensor& in, std::span<const std::int32_t> indices) {
  check_gather_rows(out, in, indices);
  const std::vector<std::uint32_t> rows(indices.begin(), indices.end());
  if (rows.empty()) return;
  device_.use();
  ArrayUpload arrays;
  arrays.add<std::uint32_t>(rows);
  const DeviceMemory list = arrays.send(device_, *staging_);
  const std::int64_t element = info(in.dtype).block_bytes;
  CopyArgs args;
  args.dst = static_cast<std::byte*>(out.data);
  args.src = static_cast<const std::byte*>(in.data);
  args.dst_stride = out.stride * element;
  args.src_stride = in.stride * element;
  args.src_index = reinterpret_cast<const std::uint32_t*>(list.data());
  args.bytes = in.cols * element;
  args.count = static_cast<std::int32_t>(rows.size());
  device_.check(launch_copy(args, device_.stream()), "gather_rows");
}

void CudaBackend::scale_softcap(const Tensor& x, float scale, float softcap) {
  check_f32("scale_softcap: the matrix", x, x.rows, x.cols);
  device_.use();
  SoftcapArgs args;
  args.x = static_cast<float*>(x.data);
  args.stride = x.stride;
  args.rows = static_cast<std::int32_t>(x.rows);
  args.cols = static_cast<std::int32_t>(x.cols);
  args.scale = scale;
  args.softcap = softcap;
  device_.check(launch_scale_softcap(args, device_.stream()), "scale_softcap");
}

void CudaBackend::sample_tokens(const Tensor& logits, std::span<const SamplingTask> tasks,
                                std::span<SamplingResult> results) {
  check_f32("sample_tokens: the logits", logits, logits.rows, logits.cols);
  if (tasks.size() != results.size())
    throw InvalidArgument(str("sample_tokens: ", tasks.size(), " tasks, and room for ", results.size(), " results"));
  const auto words = static_cast<std::size_t>((logits.cols + 31) / 32);
  for (const SamplingTask& task : tasks) {
    if (task.row < 0 || task.row >= logits.rows)
      throw InvalidArgument(str("sample_tokens: row ", task.row, " of logits of ", logits.rows, " rows"));
    if (!task.mask.empty() && task.mask.size() != words)
      throw InvalidArgument(
          str("sample_tokens: a mask of ", task.mask.size(), " words; ", logits.cols, " tokens have ", words));
  }
  for (SamplingResult& result : results) result = {};
  if (!sample_on_device_) return;
  device_.use();
  sampler_->run(logits, tasks, results);
}

}  // namespace pagedcore::cuda
