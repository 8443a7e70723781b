// One block of 4 warps for each (query head, sequence). A warp takes every fourth KV block: its threads form one group
// a token, which read the token's key in vectors of 16 bytes. Logits of the whole context are kept in shared memory as
// f32; their maximum and the sum of exponentials are reduced over the block, then the warps take every fourth KV block
// again for the values and are summed up at the end. A KV head is read once for each of its query heads.
#pragma once

#include "kernels/element.cuh"
#include "kernels/paged_attention_2023.hpp"
#include "kernels/softmax_state.cuh"

namespace pagedcore::cuda {

template <typename T, int kBlockSize>
__global__ void __launch_bounds__(128, 4) paged_attention_2023_kernel(PagedAttention2023Args args) {
  constexpr int kWarps = 4;
  constexpr int kVector = 8;                       // elements of 16 bytes
  constexpr int kThreadGroup = 32 / kBlockSize;    // threads to a token's key
  constexpr int kRowLanes = kBlockSize / kVector;  // lanes to one dimension's values of a block
  constexpr int kMaxRows = 256 * kRowLanes / 32;   // dimensions that a lane accumulates
  PC_DYNAMIC_SHARED(float, logits);                // [context], then [kWarps][head_dim] for the last sum
  PC_SHARED(float[kWarps], reduced);

  const int head = blockIdx.x, sequence = blockIdx.y, dim = args.head_dim;
  const int kv_head = head / (args.num_heads / args.num_kv_heads);
  const int warp = static_cast<int>(warp_index()), lane = static_cast<int>(lane_index());
  const int context = args.context_lens[sequence], blocks = (context + kBlockSize - 1) / kBlockSize;
  const uint32_t* table = args.tables + static_cast<int64_t>(sequence) * args.max_blocks;
  const int64_t row = (static_cast<int64_t>(sequence) * args.num_heads + head) * dim;
  const T* q = static_cast<const T*>(args.q) + row;
  const auto cache = [&](const void* data, int block) {
    return static_cast<const T*>(data) +
           (static_cast<int64_t>(table[block]) * args.num_kv_heads + kv_head) * dim * kBlockSize;
  };
  const auto load = [](const T* from, float(&to)[kVector]) {
    const uint4 vector = *reinterpret_cast<const uint4*>(from);
    const uint32_t words[4] = {vector.x, vector.y, vector.z, vector.w};
#pragma unroll
    for (int i = 0; i < kVector; ++i)
      to[i] = static_cast<float>(bits_as<T>(static_cast<uint16_t>(words[i / 2] >> (i % 2 * 16))));
  };

  float top = -kInfinity;
  for (int block = warp; block < blocks; block += kWarps) {
    const int token = lane / kThreadGroup, position = block * kBlockSize + token;
    const T* k = cache(args.k_cache, block);
    float product = 0.0f;
    for (int vector = lane % kThreadGroup; vector < dim / kVector; vector += kThreadGroup) {
      float a[kVector], b[kVector];
      load(q + vector * kVector, a);
      load(k + (vector * kBlockSize + token) * kVector, b);
#pragma unroll
      for (int i = 0; i < kVector; ++i) product = fmaf(a[i], b[i], product);
    }
    for (int mask = kThreadGroup / 2; mask > 0; mask /= 2) product += __shfl_xor_sync(kAllLanes, product, mask);
    if (position >= context) continue;
    product *= args.scale;
    if (lane % kThreadGroup == 0) logits[position] = product;
    top = fmaxf(top, product);
  }
  for (int mask = 16; mask > 0; mask /= 2) top = fmaxf(top, __shfl_xor_sync(kAllLanes, top, mask));
  if (lane == 0) reduced[warp] = top;
  __syncthreads();
  for (int w = 0; w < kWarps; ++w) top = fmaxf(top, reduced[w]);

  float sum = 0.0f;
  for (int i = threadIdx.x; i < context; i += 32 * kWarps) {
    logits[i] = __expf(logits[i] - top);
    sum += logits[i];
  }
  for (int mask = 16; mask > 0; mask /= 2) sum += __shfl_xor_sync(kAllLanes, sum, mask);
  __syncthreads();  // all have read the maximum
  if (lane == 0) reduced[warp] = sum;
  __syncthreads();
  sum = 0.0f;
  for (int w = 0; w < kWarps; ++w) sum += reduced[w];
  const float inverse = __fdividef(1.0f, sum + 1e-6f);

  float acc[kMaxRows] = {};
  const int part = lane % kRowLanes * kVector;  // tokens of a block, of this lane
  for (int block = warp; block < blocks; block += kWarps) {
    const T* v = cache(args.v_cache, block);
#pragma unroll
    for (int i = 0; i < kMaxRows; ++i) {
      const int d = lane / kRowLanes + i * (32 / kRowLanes);
      if (d >= dim) continue;
      float values[kVector];
      load(v + d * kBlockSize + part, values);
#pragma unroll
      for (int j = 0; j < kVector; ++j) {
        const int position = block * kBlockSize + part + j;
        if (position < context) acc[i] = fmaf(logits[position], values[j], acc[i]);
      }
    }
  }
  __syncthreads();  // nobody reads logits any more
#pragma unroll
  for (int i = 0; i < kMaxRows; ++i) {
    for (int mask = kRowLanes / 2; mask > 0; mask /= 2) acc[i] += __shfl_xor_sync(kAllLanes, acc[i], mask);
    const int d = lane / kRowLanes + i * (32 / kRowLanes);
    if (d < dim && lane % kRowLanes == 0) logits[warp * dim + d] = acc[i];
  }
  __syncthreads();
  for (int d = threadIdx.x; d < dim; d += 32 * kWarps) {
    float x = 0.0f;
    for (int w = 0; w < kWarps; ++w) x += logits[w * dim + d];
    static_cast<T*>(args.out)[row + d] = static_cast<T>(x * inverse);
  }
}

}  // namespace pagedcore::cuda
