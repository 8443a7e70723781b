// What a model container says about text. The engine works on token ids; encoding and decoding are its users'.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "pagedcore/export.hpp"
#include "pagedcore/fields.hpp"
#include "pagedcore/model.hpp"

namespace pagedcore {

struct ContainerText {
  std::string tokenizer;
  std::string chat_template;
  std::vector<std::int32_t> eos_token_ids;
  std::int32_t bos_token_id = -1;

  template <class V>
  static void fields(V&& v) {
    using C = ContainerText;
    v(field("tokenizer", &C::tokenizer,
            "A tokenizer.json, as Hugging Face's tokenizers read and write it. Empty: the container has none."));
    v(field("chat_template", &C::chat_template,
            "The Jinja template that makes a prompt of a conversation. Empty: the container has none."));
    v(field("eos_token_ids", &C::eos_token_ids,
            "The tokens that end an answer: give them to SamplingParams::stop_token_ids.", at_least(0)));
    v(field("bos_token_id", &C::bos_token_id, "The token before every text; -1: none is named.", at_least(-1)));
  }
};

/// The metadata of a container, read. Throws Corrupt for ids that are none. Any thread; the texts are copies.
PAGEDCORE_API ContainerText text_of(const ModelFile& file);

}  // namespace pagedcore
