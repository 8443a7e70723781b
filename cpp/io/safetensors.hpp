// The safetensors format: u64 header length (little-endian), a JSON header, then the tensors' bytes back to back.
//   {"__metadata__": {text: text}, name: {"dtype": "BF16", "shape": [2, 3], "data_offsets": [begin, end]}, ...}
// Offsets count from the end of the header. Specification: https://github.com/huggingface/safetensors
//
// A *container* is a safetensors file whose metadata has format = pagedcore. Its metadata also holds the description
// ("description:<field>") and, for each tensor in a block format, which the format does not know and which is
// therefore stored as U8, its true type and shape ("dtype:<name>" = q4_1, "shape:<name>" = 576,1536).
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "pagedcore/tensor.hpp"

namespace pagedcore::io {

constexpr std::uint64_t max_header_bytes = 100'000'000;  // the reference implementation's limit
constexpr std::size_t data_alignment = 64;               // of a container's first tensor

constexpr std::string_view format_key = "format";
constexpr std::string_view container_format = "pagedcore";
constexpr std::string_view description_prefix = "description:";
constexpr std::string_view dtype_prefix = "dtype:";
constexpr std::string_view shape_prefix = "shape:";

using Metadata = std::map<std::string, std::string>;
using TensorMap = std::map<std::string, HostTensor, std::less<>>;

struct Safetensors {
  Metadata metadata;
  TensorMap tensors;  // parts of the file
};

/// Reads the header of a whole file, given as its bytes (u8, in memory or not), a container's block formats included,
/// and believes nothing in it: Corrupt where lengths, offsets, shapes or sizes contradict each other or the file,
/// Unsupported for an element type or a rank that HostTensor lacks. Every message begins with `source` and names the
/// tensor and the value.
Safetensors read_safetensors(const HostTensor& file, std::string_view source);

/// What a header says about the tensors of a container, and the order in which their bytes follow it.
struct ContainerLayout {
  std::string header;                       // from the length to the padding
  std::vector<const HostTensor*> in_order;  // larger element types first: every tensor is aligned to its own
};

/// Throws InvalidArgument for a name that is not UTF-8 or reserved, and for a tensor whose data does not fit its shape.
ContainerLayout lay_out_container(const TensorMap& tensors, Metadata metadata);

/// The extents as text: "2,3".
std::string shape_text(const HostTensor& tensor);

}  // namespace pagedcore::io
