// Adapters (LoRA): matrices of low rank that requests add to those of the model.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "pagedcore/backend.hpp"
#include "pagedcore/fields.hpp"

namespace pagedcore {

struct ModelDescription;

inline constexpr std::int32_t kMostAdapterRank = 1 << 14;

/// How many adapters an engine may hold, and how large.
struct AdapterOptions {
  std::uint32_t max_adapters = 0;
  std::uint32_t max_adapter_rank = 64;

  template <class V>
  static void fields(V&& v) {
    using C = AdapterOptions;
    v(field("max_adapters", &C::max_adapters,
            "LoRA adapters that may be loaded at a time, whose memory is reserved; on the CPU only.", in(1, 1 << 16))
          .zero_means("none"));
    v(field("max_adapter_rank", &C::max_adapter_rank, "The largest rank that they may have.", in(1, kMostAdapterRank)));
  }
};

/// W x becomes W x + scale * up (down x), for one matrix W [out, in] of a model.
struct AdapterMatrix {
  std::string name;  // of the matrix, as WeightSource has it without ".weight": layers.0.attn.q
  HostTensor down;   // [rank, in]
  HostTensor up;     // [out, rank]
  float scale = 1.0f;
};

/// An adapter on its way in; its tensors are the caller's.
struct AdapterWeights {
  std::vector<AdapterMatrix> matrices;  // of q, k, v, o and the MLP, of any layers, each at most once
};

/// Throws InvalidArgument for an adapter that has no matrices, of another model (names and shapes), of a rank of 0 or
/// above max_adapter_rank.
PAGEDCORE_API void check_adapter(const AdapterWeights& weights, const ModelDescription& model,
                                 const AdapterOptions& options);

/// Bytes that a model holds for adapters, all together.
PAGEDCORE_API std::size_t plan_adapter_memory(const ModelDescription& model, const TensorSizes& sizes,
                                              const AdapterOptions& options, std::uint32_t max_batched_tokens);

}  // namespace pagedcore
