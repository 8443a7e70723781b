#include "cpu/attention/check.hpp"

#include "backend/checks.hpp"
#include "base/text.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore::cpu::attention_detail {

void check_call(const PagedStorage& kv, const PreparedBatch& batch, std::int32_t layer, const AttentionShape& shape) {
  check_attention(kv.shape(), batch.block_size(), batch.num_layer_groups(), layer, shape);
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
