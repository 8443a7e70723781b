// What the attention of a layer is told.
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
  std::int32_t num_kv_heads = 0;  // divides num_heads
  std::int32_t head_dim = 0;
  std::int32_t layer_group = 0;  // whose block tables are used
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
