// Rotary embedding of q and k, and the write of K and V into their token slots.
#include <vector>

#include "backend/checks.hpp"
#include "base/text.hpp"
#include "cpu/attention/attention.hpp"
#include "cpu/attention/batch.hpp"
#include "cpu/attention/kernels.hpp"
#include "cpu/kv/storage.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore::cpu {
namespace {

using namespace attention_detail;

constexpr std::int64_t kInlineElements = 16 * 1024;  // below this, waking the workers costs more than it saves

struct RopeStep {
  const Tensor& q;
  const Tensor& qkv;
  const PagedStorage& kv;
  const AttentionKernels& kernels;
  std::int32_t layer;
  const PreparedBatch& batch;
  const AttentionShape& shape;
  const RotaryTable* rotary;

  void rotate(const float* in, float* out, int heads, std::int32_t row) const {
    const auto width = rotary ? static_cast<std::size_t>(rotary->num_frequencies) : 0;
    const float* cos = rotary ? rotary->cos.data() + static_cast<std::size_t>(row) * width : nullptr;
    const float* sin = rotary ? rotary->sin.data() + static_cast<std::size_t>(row) * width : nullptr;
    kernels.rotate(in, out, heads, shape.head_dim, static_cast<int>(width), cos, sin);
  }

  // Rows of one chunk. `scratch`: heads in f32, then K and V heads in bf16.
  void run(const PreparedBatch::Chunk& chunk, char* scratch) const {
    const TileLayout& layout = kv.layout();
    const int q_cols = shape.num_heads * shape.head_dim, kv_cols = shape.num_kv_heads * shape.head_dim;
    float* rotated = reinterpret_cast<float*>(scratch);
    auto* narrowed = reinterpret_cast<std::uint16_t*>(rotated + q_cols);
    const auto tables = batch.tables(shape.layer_group);
    const std::int32_t table = batch.ranges()[static_cast<std::size_t>(chunk.range)].table_offset;
    for (std::int32_t row = chunk.first_row; row < chunk.last_row; ++row) {
      const float* in = static_cast<const float*>(qkv.data) + row * qkv.stride;
      if (q.dtype == DType::f32) {
        rotate(in, static_cast<float*>(q.data) + row * q.stride, shape.num_heads, row);
      } else {
        rotate(in, rotated, shape.num_heads, row);
        kernels.narrow(rotated, static_cast<std::uint16_t*>(q.data) + row * q.stride, q_cols);
      }
      const std::int32_t position = batch.positions()[static_cast<std::size_t>(row)];
      const std::uint32_t block = tables[static_cast<std::size_t>(table + position / layout.block_size)];
      const int token_slot = position % layout.block_size;
      rotate(in + q_cols, rotated, shape.num_kv_heads, row);
      if (layout.dtype == DType::i8) {
        const float* v = in + q_cols + kv_cols;
        for (std::int32_t h = 0; h < shape.num_kv_heads; ++h)
          write_rounded(layout, kv.part(block, layer, h), token_slot, rotated + h * shape.head_dim,
                        v + h * shape.head_dim);
        continue;
      }
      const char* k = reinterpret_cast<const char*>(rotated);
      const char* v = reinterpret_cast<const char*>(in + q_cols + kv_cols);
      if (layout.dtype == DType::bf16) {
        kernels.narrow(rotated, narrowed, kv_cols);
        kernels.narrow(in + q_cols + kv_cols, narrowed + kv_cols, kv_cols);
        k = reinterpret_cast<const char*>(narrowed);
        v = reinterpret_cast<const char*>(narrowed + kv_cols);
      }
      const std::size_t head_bytes = static_cast<std::size_t>(shape.head_dim) * layout.element;
      for (std::int32_t h = 0; h < shape.num_kv_heads; ++h, k += head_bytes, v += head_bytes)
        write_token(layout, kv.part(block, layer, h), token_slot, k, v);
    }
  }
};

}  // namespace

void rope_and_cache(ThreadPool& pool, const Tensor& q, const Tensor& qkv, KvStorage& storage, std::int32_t layer,
                    const Batch& prepared, const AttentionShape& shape, const RopeParams& rope) {
  const auto& kv = static_cast<const PagedStorage&>(storage);
  const auto& batch = static_cast<const PreparedBatch&>(prepared);
  check_layer_call(kv, batch.facts(), layer, shape);
  check_rope_and_cache(q, qkv, batch.rows(), shape, rope, DType::bf16);
  for (const TokenRange& range : batch.ranges()) {
    const std::int32_t last = (range.first_position + range.num_rows - 1) / batch.block_size();
    for (std::int32_t b = range.first_position / batch.block_size(); b <= last; ++b) {
      if (batch.tables(shape.layer_group)[static_cast<std::size_t>(range.table_offset + b)] == raw(kNoBlock))
        throw InvalidArgument(
            str("row ", range.first_row, " writes to block ", b, " of its table, which names no block"));
    }
  }
  const RotaryTable* rotary = rope.inv_freq ? &batch.rotary(pool, rope) : nullptr;

  const std::size_t scratch =
      static_cast<std::size_t>(shape.head_dim) *
      (static_cast<std::size_t>(shape.num_heads) * 4 + static_cast<std::size_t>(shape.num_kv_heads) * 2 * 2);
  const RopeStep step{q, qkv, kv, kernels_of(kv.isa()), layer, batch, shape, rotary};
  kv.workspace().reserve(pool.threads(), scratch, 0);
  const auto& chunks = batch.chunks();
  const auto body = [&](std::int64_t i, int worker) {
    step.run(chunks[static_cast<std::size_t>(i)], kv.workspace().of(worker));
  };
  if (batch.rows() * qkv.cols <= kInlineElements) {
    for (std::size_t i = 0; i < chunks.size(); ++i) body(static_cast<std::int64_t>(i), 0);
  } else {
    pool.for_each(static_cast<std::int64_t>(chunks.size()), body);
  }
}

}  // namespace pagedcore::cpu
