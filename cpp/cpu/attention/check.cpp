#include "cpu/attention/check.hpp"

#include "base/text.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore::cpu::attention_detail {

void check_call(const PagedStorage& kv, const PreparedBatch& batch, std::int32_t layer, const AttentionShape& shape) {
  const KvShape& s = kv.shape();
  if (layer < 0 || layer >= s.num_layers)
    throw InvalidArgument(str("layer ", layer, " of a KV storage that has ", s.num_layers, " layers"));
  if (shape.num_kv_heads != s.num_kv_heads || shape.head_dim != s.head_dim)
    throw InvalidArgument(str("attention over ", shape.num_kv_heads, " KV heads of size ", shape.head_dim,
                              ", but the KV storage was made for ", s.num_kv_heads, " of size ", s.head_dim));
  if (shape.num_heads < 1 || shape.num_heads % shape.num_kv_heads != 0)
    throw InvalidArgument(
        str(shape.num_heads, " attention heads are not a multiple of ", shape.num_kv_heads, " KV heads"));
  if (batch.block_size() != s.block_size)
    throw InvalidArgument(str("the batch was prepared for blocks of ", batch.block_size(),
                              " tokens, the KV storage has blocks of ", s.block_size));
  if (shape.group < 0 || shape.group >= batch.num_groups())
    throw InvalidArgument(str("group ", shape.group, " of layers, but the batch has tables of ", batch.num_groups()));
  batch.check_blocks(kv.num_blocks());
}

void check_matrix(const char* name, const Tensor& t, std::int64_t rows, std::int64_t cols) {
  if (t.rows != rows || t.cols != cols || t.stride < t.cols)
    throw InvalidArgument(
        str(name, " is [", t.rows, ", ", t.cols, "] (stride ", t.stride, "), expected [", rows, ", ", cols, "]"));
  if (t.dtype != DType::f32 && t.dtype != DType::bf16)
    throw InvalidArgument(str(name, " has type ", info(t.dtype).name, ", expected f32 or bf16"));
}

}  // namespace pagedcore::cpu::attention_detail
