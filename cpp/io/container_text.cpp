#include "pagedcore/container_text.hpp"

#include "base/field_text.hpp"
#include "base/text.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore {

ContainerText text_of(const ModelFile& file) {
  ContainerText text;
  const auto& metadata = file.metadata();
  if (const auto found = metadata.find("tokenizer.json"); found != metadata.end()) text.tokenizer = found->second;
  if (const auto found = metadata.find("chat_template"); found != metadata.end()) text.chat_template = found->second;
  if (const auto found = metadata.find("bos_token_id"); found != metadata.end()) {
    try {
      from_text("bos_token_id", found->second, text.bos_token_id);
    } catch (const Error& error) {
      throw Corrupt(str("the metadata of the container: ", error.what()));
    }
  }
  text.eos_token_ids = file.eos_token_ids();
  return text;
}

}  // namespace pagedcore
