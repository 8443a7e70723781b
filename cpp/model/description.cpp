// What makes a description one that can run. The limits are far above any model and keep all size arithmetic within 64
// bits: at most 2^24 by 2^24 elements a matrix.
#include <cmath>

#include "base/text.hpp"
#include "pagedcore/error.hpp"
#include "pagedcore/model.hpp"

namespace pagedcore {
namespace {

constexpr std::int64_t kMaxExtent = 1 << 24;
constexpr std::int64_t kMaxLayers = 1 << 14;
constexpr std::int64_t kMaxContext = 1 << 30;

void check_range(const char* field, std::int64_t value, std::int64_t least, std::int64_t most) {
  if (value < least || value > most)
    throw InvalidArgument(str("model description: ", field, " = ", value, " is outside [", least, ", ", most, "]"));
}

void check_range(const char* field, float value, float least) {
  if (!std::isfinite(value) || value < least)
    throw InvalidArgument(
        str("model description: ", field, " = ", value, " is not a finite number of at least ", least));
}

void check_finite(const char* field, float value) {
  if (!std::isfinite(value)) throw InvalidArgument(str("model description: ", field, " = ", value, " is not finite"));
}

void check_heads(const ModelDescription& d) {
  if (d.num_heads % d.num_kv_heads != 0)
    throw InvalidArgument(
        str("model description: num_heads = ", d.num_heads, " is not a multiple of num_kv_heads = ", d.num_kv_heads));
  check_range("num_heads * head_dim", std::int64_t{d.num_heads} * d.head_dim, 1, kMaxExtent / 4);
}

void check_rope(const ModelDescription& d) {
  if (2 * d.rope_inv_freq.size() > static_cast<std::size_t>(d.head_dim))
    throw InvalidArgument(str("model description: rope_inv_freq has ", d.rope_inv_freq.size(),
                              " frequencies, which rotate ", 2 * d.rope_inv_freq.size(), " dimensions of a head of ",
                              d.head_dim));
  for (const float frequency : d.rope_inv_freq) check_range("rope_inv_freq", frequency, 0.0f);
  check_finite("rope_magnitude", d.rope_magnitude);
}

void check_windows(const ModelDescription& d) {
  if (!d.windows.empty() && d.windows.size() != static_cast<std::size_t>(d.num_layers))
    throw InvalidArgument(str("model description: windows has ", d.windows.size(), " entries for ", d.num_layers,
                              " layers; give one for each, or none"));
  for (const std::int32_t window : d.windows) check_range("windows", window, 0, kMaxContext);
}

}  // namespace

void ModelDescription::validate() const {
  check_range("architecture's length", static_cast<std::int64_t>(architecture.size()), 0, 256);
  for (const char c : architecture)
    if (static_cast<unsigned char>(c) < ' ') throw InvalidArgument("model description: architecture has control codes");
  check_range("vocab_size", vocab_size, 1, kMaxExtent);
  check_range("hidden_size", hidden_size, 1, kMaxExtent);
  check_range("intermediate_size", intermediate_size, 1, kMaxExtent);
  check_range("num_layers", num_layers, 1, kMaxLayers);
  check_range("num_heads", num_heads, 1, kMaxExtent);
  check_range("num_kv_heads", num_kv_heads, 1, kMaxExtent);
  check_range("head_dim", head_dim, 1, kMaxExtent);
  check_range("max_context", max_context, 1, kMaxContext);
  check_range("norm", static_cast<std::int64_t>(norm), 0, static_cast<std::int64_t>(NormKind::layer));
  check_range("activation", static_cast<std::int64_t>(activation), 0, static_cast<std::int64_t>(Activation::relu));
  check_heads(*this);
  check_range("norm_eps", norm_eps, 0.0f);
  check_finite("norm_weight_offset", norm_weight_offset);
  check_finite("embedding_scale", embedding_scale);
  check_range("attention_scale", attention_scale, 0.0f);
  check_range("attention_softcap", attention_softcap, 0.0f);
  check_finite("logit_scale", logit_scale);
  check_range("logit_softcap", logit_softcap, 0.0f);
  check_rope(*this);
  check_windows(*this);
}

}  // namespace pagedcore
