#include <algorithm>
#include <cstddef>
#include <span>
#include <utility>
#include <vector>

#include "base/text.hpp"
#include "io/new_file.hpp"
#include "io/safetensors.hpp"
#include "pagedcore/error.hpp"
#include "pagedcore/model.hpp"

namespace pagedcore {

void save_model(const std::string& path, const ModelDescription& description, const WeightMap& weights,
                const std::map<std::string, std::string>& extra_metadata) {
  io::Metadata metadata = extra_metadata;
  for (const auto& entry : extra_metadata) {
    const std::string& key = entry.first;
    if (key == io::format_key || key.starts_with(io::description_prefix) || key.starts_with(io::dtype_prefix) ||
        key.starts_with(io::shape_prefix)) {
      throw InvalidArgument(str("the metadata key '", key, "' is reserved for the container itself"));
    }
  }
  metadata[std::string(io::format_key)] = io::container_format;
  for (const auto& [field, value] : description.to_text()) metadata[str(io::description_prefix, field)] = value;

  const io::ContainerLayout layout = io::lay_out_container(weights.tensors(), std::move(metadata));
  io::NewFile file(path);
  file.write(std::as_bytes(std::span(layout.header)));
  std::vector<std::byte> piece;  // of a tensor that is in another file
  for (const HostTensor* tensor : layout.in_order) {
    if (tensor->source == nullptr) {
      file.write(tensor->data);
      continue;
    }
    for (std::size_t at = 0; at < tensor->length; at += piece.size()) {
      piece.resize(std::min(tensor->length - at, std::size_t{1} << 20));
      read_bytes(*tensor, at, piece);
      file.write(piece);
    }
  }
  file.commit();
}

}  // namespace pagedcore
