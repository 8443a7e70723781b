#include "kernels/rope_cache.cuh"

namespace pagedcore::cuda {
namespace {

template <typename T, KvType kKv>
cudaError_t launch(const RopeCacheArgs& args, cudaStream_t stream) {
  const int64_t warps = static_cast<int64_t>(args.rows) * (args.num_heads + args.kv.num_kv_heads);
  constexpr auto kernel = rope_and_cache_kernel<T, kKv>;
  PC_LAUNCH(kernel, dim3(static_cast<unsigned>((warps + kRopeWarps - 1) / kRopeWarps)), dim3(32 * kRopeWarps), 0,
            stream, args);
  return cudaGetLastError();
}

template <typename T>
cudaError_t launch(const RopeCacheArgs& args, cudaStream_t stream) {
  switch (args.kv.tile.type) {
    case KvType::fp8_e4m3:
      return launch<T, KvType::fp8_e4m3>(args, stream);
    case KvType::int8:
      return launch<T, KvType::int8>(args, stream);
    case KvType::f16:
    case KvType::bf16:
      return launch<T, KvType::bf16>(args, stream);  // of type T
  }
  return cudaErrorInvalidValue;
}

}  // namespace

cudaError_t launch_rotary_table(const RotaryTableArgs& args, cudaStream_t stream) {
  const int64_t count = static_cast<int64_t>(args.rows) * args.num_frequencies;
  if (count == 0) return cudaSuccess;
  PC_LAUNCH(rotary_table_kernel, dim3(static_cast<unsigned>((count + 127) / 128)), dim3(128), 0, stream, args);
  return cudaGetLastError();
}

cudaError_t launch_rope_and_cache(const RopeCacheArgs& args, cudaStream_t stream) {
  if (args.rows == 0) return cudaSuccess;
  return args.compute == ComputeType::f16 ? launch<__half>(args, stream) : launch<__nv_bfloat16>(args, stream);
}

}  // namespace pagedcore::cuda
