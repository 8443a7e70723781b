// What attention is told of one layer.
#pragma once

#include <cstdint>

#include "pagedcore/tensor.hpp"

namespace pagedcore {

/// Rotary embedding over the first 2 * num_frequencies dimensions of a head; dimension i pairs with i +
/// num_frequencies.
struct RopeParams {
  const Tensor* inv_freq = nullptr;  // f32 [1, num_frequencies]; none: no rotation
  float magnitude = 1.0f;            // multiplies cos and sin (YaRN's attention factor)
};

struct AttentionShape {
  std::int32_t num_heads = 0;
  std::int32_t num_kv_heads = 0;  // divides num_heads, unless heads_per_kv_head is given
  std::int32_t head_dim = 0;
  std::int32_t layer_group = 0;        // whose block tables are used
  std::int32_t heads_per_kv_head = 0;  // 0: num_heads / num_kv_heads. A range of a model's heads may begin and end
                                       // within the query heads of a KV head:
  std::int32_t first_in_group = 0;     // the place of head 0 among those of KV head 0

  std::int32_t group() const noexcept { return heads_per_kv_head > 0 ? heads_per_kv_head : num_heads / num_kv_heads; }
};

struct AttentionParams {
  AttentionShape shape;
  float scale = 1.0f;             // multiplies q.k
  float softcap = 0.0f;           // > 0: scores become softcap * tanh(score / softcap)
  std::int32_t window = 0;        // > 0: a row at position p sees positions (p - window, p]
  bool bidirectional = false;     // a row sees positions up to the end of its range; with a window below p + window
  const Tensor* alibi = nullptr;  // f32 [1, num_heads], or none: a score of a token n positions back is less by n times
                                  // its head's number, after scale and softcap
  const Tensor* sinks = nullptr;  // f32 [1, num_heads], or none: for each head the score of one more token that every
                                  // row sees, after all of that; its value is zero
};

}  // namespace pagedcore
