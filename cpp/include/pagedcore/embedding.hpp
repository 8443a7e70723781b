// Embeddings: how the rows of a text become one vector.
#pragma once

#include <cstdint>
#include <vector>

#include "pagedcore/fields.hpp"

namespace pagedcore {

/// Which rows of a text its embedding is made of: what the last layer and the final norm give for each token.
enum class Pooling : std::uint8_t {
  automatic,  // what the model was trained with
  last,       // that of the last token
  mean,       // the mean of all
  cls,        // that of the first token, of a model whose tokens see those behind them
};
template <>
struct Words<Pooling> {
  static constexpr Word<Pooling> list[] = {
      {Pooling::automatic, "auto"}, {Pooling::last, "last"}, {Pooling::mean, "mean"}, {Pooling::cls, "cls"}};
};

/// What is asked of a text instead of more of it.
struct EmbeddingParams {
  Pooling pooling = Pooling::automatic;
  bool normalize = true;
  std::uint32_t dimensions = 0;

  template <class V>
  static void fields(V&& v) {
    using P = EmbeddingParams;
    v(field("pooling", &P::pooling,
            "Which rows of the text become its embedding: that of the last token, the mean of all, that of the first "
            "(cls), or what the model was trained with (auto)."));
    v(field("normalize", &P::normalize, "Scale the embedding to length 1."));
    v(field("dimensions", &P::dimensions, "How many of its numbers are kept, the first ones, before it is scaled.",
            in(1, 1 << 24))
          .zero_means("all"));
  }
};

/// What a model was trained to make of a text.
struct EmbeddingDescription {
  Pooling pooling = Pooling::last;
  std::vector<std::int32_t> dense_sizes;
  std::vector<std::int32_t> dense_tanh;

  template <class V>
  static void fields(V&& v) {
    using C = EmbeddingDescription;
    v(field("pooling", &C::pooling, "Which rows become an embedding: last, mean or cls."));
    v(field("dense_sizes", &C::dense_sizes,
            "Columns of each product that an embedding goes through before it is cut and scaled.", in(1, 1 << 24)));
    v(field("dense_tanh", &C::dense_tanh, "For each of them, 1: a tanh follows it. Empty: none has one.", in(0, 1)));
  }
};

}  // namespace pagedcore
