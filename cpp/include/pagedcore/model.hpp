// The decoder: a description, its weights, and the forward pass written once against Backend.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "pagedcore/backend.hpp"
#include "pagedcore/embedding.hpp"
#include "pagedcore/export.hpp"
#include "pagedcore/feed_forward.hpp"
#include "pagedcore/fields.hpp"
#include "pagedcore/model_rank.hpp"
#include "pagedcore/tensor.hpp"

namespace pagedcore {

/// Where the norms of a layer lie, f being attention or the MLP.
enum class NormPlace : std::uint8_t {
  before,   // x + f(norm(x))
  after,    // x + norm(f(x))
  both,     // x + norm(f(norm(x)))
  outside,  // norm(x + f(x))
};
template <>
struct Words<NormPlace> {
  static constexpr Word<NormPlace> list[] = {{NormPlace::before, "before"},
                                             {NormPlace::after, "after"},
                                             {NormPlace::both, "both"},
                                             {NormPlace::outside, "outside"}};
};

/// What a norm of q or k runs over, and which weights it has.
enum class QkNormSpan : std::uint8_t {
  head,   // each head; weights [head_dim] are those of all heads
  heads,  // each head; weights [heads * head_dim]
  row,    // all heads together; weights [heads * head_dim]
};
template <>
struct Words<QkNormSpan> {
  static constexpr Word<QkNormSpan> list[] = {
      {QkNormSpan::head, "head"}, {QkNormSpan::heads, "heads"}, {QkNormSpan::row, "row"}};
};

/// The norms of layers, of embeddings and at the end. Weights and biases that a checkpoint has none of are ones and
/// zeros.
struct NormDescription {
  NormKind kind = NormKind::rms;
  float eps = 1e-5f;
  float weight_offset = 0.0f;
  NormPlace place = NormPlace::before;
  bool weights = true;
  bool embedding = false;
  bool final = true;

  template <class V>
  static void fields(V&& v) {
    using C = NormDescription;
    v(field("norm", &C::kind, "rms or layer."));
    v(field("norm_eps", &C::eps, "Added to the mean square, or to the variance.", at_least(0)));
    v(field("norm_weight_offset", &C::weight_offset, "Added to every weight of a norm."));
    v(field("norm_place", &C::place,
            "Where the norms of attention and MLP f lie: before, x + f(norm(x)); after, x + norm(f(x)); both; or "
            "outside, norm(x + f(x))."));
    v(field("norm_weights", &C::weights, "Norms have weights; else they only normalise."));
    v(field("embedding_norm", &C::embedding, "A norm follows the embedding."));
    v(field("final_norm", &C::final, "A norm follows the last layer."));
  }
};

/// How a row knows the position of its token.
struct PositionDescription {
  std::vector<float> rope_inv_freq;
  float rope_magnitude = 1.0f;
  std::int32_t rope_tables = 1;
  std::vector<std::int32_t> rope_layers;
  std::int32_t learned = 0;
  std::int32_t learned_offset = 0;
  std::vector<float> alibi_slopes;

  template <class V>
  static void fields(V&& v) {
    using C = PositionDescription;
    v(field("rope_inv_freq", &C::rope_inv_freq,
            "Rotary embedding: the angle by which each pair of dimensions of a head turns from one position to the "
            "next, scaling already applied. Empty: no rotation.",
            at_least(0)));
    v(field("rope_magnitude", &C::rope_magnitude,
            "Factor on the cosines and sines (YaRN's attention factor) of the first table."));
    v(field("rope_tables", &C::rope_tables, "Tables in rope_inv_freq, of equal length, one after another.",
            in(1, 1 << 14)));
    v(field("rope_layers", &C::rope_layers,
            "For each layer, the table that rotates it, from 0 on; -1: none. Empty: the first in every layer.",
            in(-1, 1 << 14)));
    v(field("learned_positions", &C::learned,
            "Rows of a table of learned positions, one of which is added to each embedding; 0: none.",
            in(0, kMostExtent)));
    v(field("learned_offset", &C::learned_offset, "The row of position 0 in that table.", in(0, kMostExtent)));
    v(field("alibi_slopes", &C::alibi_slopes,
            "For each head, what is taken from a score for every token between (ALiBi). Empty: nothing.", at_least(0)));
  }
};

struct AttentionDescription {
  std::int32_t num_heads = 0;
  std::int32_t num_kv_heads = 0;
  std::int32_t head_dim = 0;
  bool qk_norm = false;
  NormKind qk_norm_kind = NormKind::rms;
  QkNormSpan qk_norm_span = QkNormSpan::head;
  float scale = 0.0f;
  float softcap = 0.0f;
  std::vector<std::int32_t> windows;
  bool bidirectional = false;
  bool sinks = false;

  template <class V>
  static void fields(V&& v) {
    using C = AttentionDescription;
    v(field("num_heads", &C::num_heads, "Query heads.", in(1, kMostExtent)));
    v(field("num_kv_heads", &C::num_kv_heads, "Key and value heads; divides num_heads.", in(1, kMostExtent)));
    v(field("head_dim", &C::head_dim, "Dimensions of a head.", in(1, kMostExtent)));
    v(field("qk_norm", &C::qk_norm, "q and k are normalised before they are rotated."));
    v(field("qk_norm_kind", &C::qk_norm_kind, "rms or layer."));
    v(field("qk_norm_span", &C::qk_norm_span,
            "head: over each head, with the same weights for all; heads: over each head, with weights of its own; row: "
            "over all heads together."));
    v(field("attention_scale", &C::scale, "Multiplies the scores.", at_least(0)).zero_means("1 / sqrt(head_dim)"));
    v(field("attention_softcap", &C::softcap, "Scores become softcap * tanh(score / softcap).", at_least(0))
          .note("0 turns it off"));
    v(field("windows", &C::windows,
            "For each layer, how many tokens back a row sees, its own included; 0: all. Empty: all in every layer.",
            in(0, 1 << 30)));
    v(field("bidirectional", &C::bidirectional,
            "A row sees the tokens behind its own too, with a window as far as before it: a text is computed whole, in "
            "one step."));
    v(field("attention_sinks", &C::sinks,
            "Each head has a score of its own, as if every row saw one more token, whose value is zero."));
  }
};

/// A transformer of one stack of layers, a decoder or an encoder, complete: the forward pass asks nothing else. A
/// family fills it from a checkpoint's configuration. As text its fields, those of the parts included, lie flat under
/// one vocabulary.
struct ModelDescription {
  std::string architecture;
  std::int32_t vocab_size = 0;
  std::int32_t hidden_size = 0;
  std::int32_t num_layers = 0;
  std::int32_t max_context = 0;
  NormDescription norm;
  PositionDescription position;
  AttentionDescription attention;
  MlpDescription mlp;
  MixtureDescription mixture;
  EmbeddingDescription embedding;
  bool parallel = false;
  bool head = true;
  bool tied_embeddings = false;
  std::int32_t embedding_size = 0;
  float embedding_scale = 1.0f;
  float residual_scale = 1.0f;
  float logit_scale = 1.0f;
  float logit_softcap = 0.0f;

  template <class V>
  static void fields(V&& v) {
    using C = ModelDescription;
    v(field("architecture", &C::architecture, "Its name, for people."));
    v(field("vocab_size", &C::vocab_size, "Tokens of the vocabulary.", in(1, kMostExtent)));
    v(field("hidden_size", &C::hidden_size, "Columns of the residual stream.", in(1, kMostExtent)));
    v(field("num_layers", &C::num_layers, "Transformer layers.", in(1, 1 << 14)));
    v(field("max_context", &C::max_context, "Positions that the model was made for.", in(1, 1 << 30)));
    v(part("norm", &C::norm, "Normalisation."));
    v(part("position", &C::position, "How a row knows its position."));
    v(part("attention", &C::attention, "Attention."));
    v(part("mlp", &C::mlp, "The MLP."));
    v(part("mixture", &C::mixture, "Experts in its place."));
    v(part("embedding", &C::embedding, "What becomes of a text's rows."));
    v(field("parallel_block", &C::parallel,
            "Attention and MLP read the same x, each through its own norm, and both are added to it."));
    v(field("head", &C::head, "A head gives logits, so that the model generates; else it only makes embeddings."));
    v(field("tied_embeddings", &C::tied_embeddings, "The head's weight is the embedding."));
    v(field("embedding_size", &C::embedding_size,
            "Columns of the embedding, which a product takes to hidden_size, and back before the head.",
            in(1, kMostExtent))
          .zero_means("hidden_size, without products"));
    v(field("embedding_scale", &C::embedding_scale, "Multiplies the embedding of a token."));
    v(field("residual_scale", &C::residual_scale, "Multiplies what attention and MLP add to the residual stream."));
    v(field("logit_scale", &C::logit_scale, "Multiplies the logits."));
    v(field("logit_softcap", &C::logit_softcap, "Logits become softcap * tanh(logit / softcap).", at_least(0))
          .note("0 turns it off"));
  }

  /// Throws InvalidArgument naming the first field that is out of its range or contradicts the rest.
  PAGEDCORE_API void validate() const;
  /// As text (field name to value) and back: the form in which a container keeps it. from_text leaves absent fields at
  /// their defaults and throws InvalidArgument for an unknown key, a malformed or out-of-range value (both are named),
  /// or when the whole does not validate().
  PAGEDCORE_API std::map<std::string, std::string> to_text() const;
  PAGEDCORE_API static ModelDescription from_text(const std::map<std::string, std::string>& text);
};

/// How the layers share a KV cache: in at most 16 layer groups of equally many places, whose layers have one attention
/// window, so that every group can have block tables of its own and blocks behind a window go. Groups with full context
/// come first. The last group of a window may leave places unused: the number of places is the one that wastes least at
/// the model's full context. With more than 16 windows all layers are one group with full context.
struct LayerGroups {
  struct Place {
    std::int32_t layer_group = 0;
    std::int32_t index = 0;  // of the layer within its layer group, and within a block
  };
  std::int32_t layers_per_group = 0;   // places
  std::vector<std::uint32_t> windows;  // [layer groups] in tokens, 0: full context
  std::vector<Place> layers;           // [layers]
};
PAGEDCORE_API LayerGroups layer_groups(const ModelDescription& description);

/// Where weights come from, by canonical name:
///   embed.weight, embed_norm.weight[, .bias], embed_in.weight and embed_out.weight (with an embedding_size),
///   positions.weight (learned), final_norm.weight[, .bias], lm_head.weight[, .bias] (absent when tied, or without a
///   head), dense.i.weight[, .bias] for each of dense_sizes, and for each layer i
///   layers.i.{attn,mlp}_norm.weight[, .bias] (before), layers.i.{attn,mlp}_post_norm.weight[, .bias] (after, outside),
///   layers.i.attn.{q,k,v,o}.weight[, .bias], layers.i.attn.{q,k}_norm.weight[, .bias],
///   layers.i.attn.sinks.weight (with sinks),
///   layers.i.mlp.{gate,up,down}.weight[, .bias] (no gate when the MLP is not gated), or of a mixture
///   layers.i.mlp.router.weight, layers.i.mlp.experts.e.{gate,up,down}.weight for each expert e, with mixture_biases
///   .bias of all of those,
///   layers.i.mlp.shared.{gate,up,down}.weight and layers.i.mlp.shared_gate.weight (with a shared expert).
/// Matrices are [output features, input features]. What the description does not ask for is not read.
class PAGEDCORE_API WeightSource {
 public:
  virtual ~WeightSource();
  virtual bool has(std::string_view name) const = 0;
  /// Throws Corrupt when absent. The tensor stays valid until the source goes.
  virtual HostTensor get(std::string_view name) const = 0;
  /// The element type of a tensor, for planning; none where it is absent.
  virtual std::optional<DType> type_of(std::string_view name) const;
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

/// Rows of one step for which logits are wanted, and those whose hidden states are: what the last layer and the final
/// norm give. Both in order.
struct ForwardRequest {
  const Batch* batch = nullptr;
  std::span<const std::int32_t> logit_rows;
  std::span<const std::int32_t> hidden_rows = {};
  /// Takes hidden states, f32 [rows, hidden_size], as `consume` takes logits, after all of those.
  std::function<void(std::int64_t first, const Tensor& hidden)> take_hidden = {};
  std::span<const TokenId> tokens = {};  // of the batch; only ranks ask
};

class PAGEDCORE_API Model {
 public:
  /// Packs the weights into `backend`, which must outlive the model. Throws Corrupt when a tensor is missing or has
  /// another shape than the description says (both are named), Unsupported for a type that cannot be packed.
  /// A rank packs its part of them.
  Model(const ModelDescription& description, const WeightSource& weights, Backend& backend,
        std::uint32_t max_batched_tokens, std::uint32_t max_logit_rows, const ModelRank& rank = {});
  ~Model();
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;

  const ModelDescription& description() const noexcept;
  /// Of one layer group (layer_groups()); of a rank, its KV heads.
  KvShape kv_shape(std::int32_t block_size) const;

  /// What ranks speak through from now on, before the first forward(); must outlive the last one. The ranks of a model
  /// call forward() with the same rows and tokens. Logits are whole at rank 0; other ranks consume none.
  void speak_through(comm::Communicator& communicator) noexcept;

  /// Runs all layers over the batch (writing its KV), then calls `consume(first, logits)` for consecutive pieces of at
  /// most max_logit_rows rows of logits (f32, device): piece rows i are logit_rows[first + i]. The logits are valid in
  /// the call.
  void forward(const ForwardRequest& request, KvStorage& kv,
               const std::function<void(std::int64_t first, const Tensor& logits)>& consume);

  /// What the products of dense_sizes make of embeddings: `pooled` is [n, hidden_size], row by row, what is returned
  /// [n, the last of them], or `pooled` where there are none. Waits.
  std::vector<float> dense(std::vector<float> pooled);

  std::size_t weight_bytes() const noexcept;
  std::size_t activation_bytes() const noexcept;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Bytes that a model will hold, known before anything is allocated. `weights`, of which only types are asked, says
/// which block formats there are to keep; without it all weights count in the compute type.
struct ModelMemory {
  std::size_t weights = 0;
  std::size_t native_weights = 0;   // of them: in a block format
  std::size_t integer_weights = 0;  // of those: their products are in integers
  std::size_t dense_weights = 0;    // of all: matrices in the compute type; norms and biases are the rest
  std::size_t activations = 0;
  std::size_t kv_block = 0;  // one block of block_size tokens, the layers of one layer group
};
PAGEDCORE_API ModelMemory plan_model_memory(const ModelDescription& description, const TensorSizes& sizes,
                                            std::int32_t block_size, std::uint32_t max_batched_tokens,
                                            std::uint32_t max_logit_rows, const WeightSource* weights = nullptr,
                                            const ModelRank& rank = {});

/// The metadata key under which a container names the tokens that end a sequence: "2" or "2,7".
inline constexpr const char* kEosTokenIds = "eos_token_ids";

/// A model container: one safetensors file with canonical names and the description in its metadata. Its tensors are
/// read from the file, piece by piece, when they are wanted.
class PAGEDCORE_API ModelFile final : public WeightSource {
 public:
  /// Throws Io when it cannot be opened, Corrupt when any offset, size or type contradicts the file. `mmap`: tensors
  /// lie in memory, mapped, which trusts whoever may write to the file (see InputFile).
  explicit ModelFile(const std::string& path, bool mmap = false);
  ~ModelFile() override;
  bool has(std::string_view name) const override;
  HostTensor get(std::string_view name) const override;
  std::vector<std::string> names() const;
  const std::map<std::string, std::string>& metadata() const noexcept;
  /// The description a container carries; throws Corrupt for a plain safetensors file.
  ModelDescription description() const;
  /// The tokens that end a sequence, from the metadata key kEosTokenIds; empty when the container does not name them.
  /// Throws Corrupt for anything but ids separated by commas.
  std::vector<std::int32_t> eos_token_ids() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Writes a container through a temporary file and rename. Throws Io. Block-quantized tensors are stored as raw bytes
/// with their type and shape in the metadata.
PAGEDCORE_API void save_model(const std::string& path, const ModelDescription& description, const WeightMap& weights,
                              const std::map<std::string, std::string>& extra_metadata);

}  // namespace pagedcore
