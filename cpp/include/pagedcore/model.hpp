// The decoder: a description, its weights, and the forward pass written once against Backend.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "pagedcore/backend.hpp"
#include "pagedcore/export.hpp"
#include "pagedcore/tensor.hpp"

namespace pagedcore {

/// A decoder-only transformer, complete: the forward pass asks nothing else. Filled from a checkpoint's configuration.
struct ModelDescription {
  std::string architecture;  // for people
  std::int32_t vocab_size = 0;
  std::int32_t hidden_size = 0;
  std::int32_t intermediate_size = 0;
  std::int32_t num_layers = 0;
  std::int32_t num_heads = 0;
  std::int32_t num_kv_heads = 0;
  std::int32_t head_dim = 0;
  std::int32_t max_context = 0;  // positions the model was made for
  NormKind norm = NormKind::rms;
  float norm_eps = 1e-5f;
  float norm_weight_offset = 0.0f;
  Activation activation = Activation::silu;
  bool gated_mlp = true;
  bool tied_embeddings = false;  // lm_head is the embedding
  bool qk_norm = false;          // RMS norm over each head of q and k
  float embedding_scale = 1.0f;
  float attention_scale = 0.0f;  // 0: 1 / sqrt(head_dim)
  float attention_softcap = 0.0f;
  float logit_scale = 1.0f;
  float logit_softcap = 0.0f;
  std::vector<float> rope_inv_freq;  // scaling already applied; empty: no rotation
  float rope_magnitude = 1.0f;
  std::vector<std::int32_t> windows;  // per layer, 0: full attention; empty: full everywhere

  /// Throws InvalidArgument naming the first field that contradicts the rest.
  PAGEDCORE_API void validate() const;
  /// As text (field name to value) and back: the form in which a container keeps it. from_text leaves absent fields at
  /// their defaults and throws InvalidArgument for an unknown key, a malformed or out-of-range value (both are named),
  /// or when the whole does not validate().
  PAGEDCORE_API std::map<std::string, std::string> to_text() const;
  PAGEDCORE_API static ModelDescription from_text(const std::map<std::string, std::string>& text);
};

/// How the layers share a KV cache: in layer groups of equally many layers with one attention window, so that every
/// group can have block tables of its own and blocks behind a window go. Groups with full context come first. When
/// windows are so unevenly distributed that there would be more than 16 groups, all layers are one group with full
/// context.
struct LayerGroups {
  struct Place {
    std::int32_t layer_group = 0;
    std::int32_t index = 0;  // of the layer within its layer group, and within a block
  };
  std::int32_t layers_per_group = 0;
  std::vector<std::uint32_t> windows;  // [layer groups] in tokens, 0: full context
  std::vector<Place> layers;           // [layers]
};
PAGEDCORE_API LayerGroups layer_groups(const ModelDescription& description);

/// Where weights come from, by canonical name:
///   embed.weight, final_norm.weight[, .bias], lm_head.weight[, .bias] (absent when tied), and for each layer i
///   layers.i.attn_norm.weight, layers.i.attn.{q,k,v,o}.weight[, .bias], layers.i.attn.{q,k}_norm.weight,
///   layers.i.mlp_norm.weight, layers.i.mlp.{gate,up,down}.weight[, .bias] (no gate when the MLP is not gated).
/// Matrices are [output features, input features].
class PAGEDCORE_API WeightSource {
 public:
  virtual ~WeightSource();
  virtual bool has(std::string_view name) const = 0;
  /// Throws Corrupt when absent. The tensor stays valid until the source goes.
  virtual HostTensor get(std::string_view name) const = 0;
};

/// A weight source over tensors that the caller keeps alive.
class PAGEDCORE_API WeightMap final : public WeightSource {
 public:
  void add(std::string name, const HostTensor& tensor);
  bool has(std::string_view name) const override;
  HostTensor get(std::string_view name) const override;
  std::size_t size() const noexcept { return tensors_.size(); }
  const std::map<std::string, HostTensor, std::less<>>& tensors() const noexcept { return tensors_; }

 private:
  std::map<std::string, HostTensor, std::less<>> tensors_;
};

/// Rows of one step for which logits are wanted, in order.
struct ForwardRequest {
  const Batch* batch = nullptr;
  std::span<const std::int32_t> logit_rows;
};

class PAGEDCORE_API Model {
 public:
  /// Packs the weights into `backend`, which must outlive the model. Throws Corrupt when a tensor is missing or has
  /// another shape than the description says (both are named), Unsupported for a type that cannot be packed.
  Model(const ModelDescription& description, const WeightSource& weights, Backend& backend,
        std::uint32_t max_batched_tokens, std::uint32_t max_logit_rows);
  ~Model();
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;

  const ModelDescription& description() const noexcept;
  /// Of one layer group (layer_groups()).
  KvShape kv_shape(std::int32_t block_size) const;

  /// Runs all layers over the batch (writing its KV), then calls `consume(first, logits)` for consecutive pieces of at
  /// most max_logit_rows rows of logits (f32, device): piece rows i are logit_rows[first + i]. The logits are valid in
  /// the call.
  void forward(const ForwardRequest& request, KvStorage& kv,
               const std::function<void(std::int64_t first, const Tensor& logits)>& consume);

  std::size_t weight_bytes() const noexcept;
  std::size_t activation_bytes() const noexcept;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Bytes that a model will hold, known before anything is allocated.
struct ModelMemory {
  std::size_t weights = 0;
  std::size_t activations = 0;
  std::size_t kv_block = 0;  // one block of block_size tokens, the layers of one layer group
};
PAGEDCORE_API ModelMemory plan_model_memory(const ModelDescription& description, const Backend& backend,
                                            std::int32_t block_size, std::uint32_t max_batched_tokens,
                                            std::uint32_t max_logit_rows);

/// A model container: one safetensors file with canonical names, the description in its metadata, opened by mmap.
class PAGEDCORE_API ModelFile final : public WeightSource {
 public:
  /// Throws Io when it cannot be opened, Corrupt when any offset, size or type contradicts the file.
  explicit ModelFile(const std::string& path);
  ~ModelFile() override;
  bool has(std::string_view name) const override;
  HostTensor get(std::string_view name) const override;
  std::vector<std::string> names() const;
  const std::map<std::string, std::string>& metadata() const noexcept;
  /// The description a container carries; throws Corrupt for a plain safetensors file.
  ModelDescription description() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Writes a container through a temporary file and rename. Throws Io. Block-quantized tensors are stored as raw bytes
/// with their type and shape in the metadata.
PAGEDCORE_API void save_model(const std::string& path, const ModelDescription& description, const WeightMap& weights,
                              const std::map<std::string, std::string>& extra_metadata);

}  // namespace pagedcore
