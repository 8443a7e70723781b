#include "backend/storage.hpp"

#include "base/text.hpp"
#include "kernels/attention.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore::cuda {
namespace {

KvType kv_type_of(DType dtype) {
  switch (dtype) {
    case DType::f16:
      return KvType::f16;
    case DType::bf16:
      return KvType::bf16;
    case DType::f8_e4m3:
      return KvType::fp8_e4m3;
    case DType::i8:
      return KvType::int8;
    default:
      throw Unsupported(
          str("KV element type ", info(dtype).name, ": the CUDA backend stores f16, bf16, f8_e4m3 or i8"));
  }
}

}  // namespace

KvTile kv_tile_of(const KvShape& shape) {
  if (shape.num_layers < 1 || shape.num_kv_heads < 1)
    throw InvalidArgument(str("KV storage of ", shape.num_layers, " layers x ", shape.num_kv_heads,
                              " KV heads: both must be at least 1"));
  if (shape.block_size < 1 || shape.block_size > 256)
    throw Unsupported(str("block size ", shape.block_size, " is outside 1 to 256 tokens; 16 is the usual choice"));
  if (!attention_supports(shape.head_dim))
    throw Unsupported(str("head size ", shape.head_dim, ": the CUDA backend serves 64, 80, 96, 112, 128 and 256"));
  return {kv_type_of(shape.dtype), shape.head_dim, shape.block_size};
}

}  // namespace pagedcore::cuda
