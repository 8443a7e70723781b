#include "io/safetensors.hpp"

#include <algorithm>
#include <array>
#include <limits>
#include <optional>
#include <utility>
#include <vector>

#include "base/text.hpp"
#include "io/json.hpp"
#include "pagedcore/error.hpp"

namespace pagedcore::io {
namespace {

constexpr std::size_t length_bytes = 8;

constexpr std::array<std::pair<std::string_view, DType>, 11> type_names{{
    {"F64", DType::f64},
    {"F32", DType::f32},
    {"F16", DType::f16},
    {"BF16", DType::bf16},
    {"I64", DType::i64},
    {"I32", DType::i32},
    {"I16", DType::i16},
    {"I8", DType::i8},
    {"U8", DType::u8},
    {"BOOL", DType::boolean},
    {"F8_E4M3", DType::f8_e4m3},
}};

bool is_block_format(DType dtype) { return info(dtype).block_elements > 1; }

/// One tensor of the header, before it is checked against the file.
struct Entry {
  std::optional<std::string> dtype;
  std::optional<std::vector<std::uint64_t>> shape;
  std::optional<std::vector<std::uint64_t>> offsets;
};

std::vector<std::uint64_t> read_integers(JsonReader& json) {
  std::vector<std::uint64_t> integers;
  json.array([&] { integers.push_back(json.unsigned_integer()); });
  return integers;
}

Entry read_entry(JsonReader& json) {
  Entry entry;
  json.object([&](const std::string& key) {
    if (key == "dtype") {
      entry.dtype = json.string();
    } else if (key == "shape") {
      entry.shape = read_integers(json);
    } else if (key == "data_offsets") {
      entry.offsets = read_integers(json);
    } else {
      json.fail(str("a tensor has the unknown property '", key, "'"));
    }
  });
  return entry;
}

/// Makes the tensor's bytes those of `whole` from `first` on.
void move_to(HostTensor& tensor, const HostTensor& whole, std::size_t first, std::size_t length) {
  tensor.data = whole.source == nullptr ? whole.data.subspan(first, length) : std::span<const std::byte>{};
  tensor.source = whole.source;
  tensor.offset = whole.offset + first;
  tensor.length = length;
}

/// Checks one file's statements; `source` begins every message.
class Checker {
 public:
  explicit Checker(std::string_view source) : source_(source) {}

  template <class... Args>
  [[noreturn]] void corrupt(const Args&... args) const {
    throw Corrupt(str(source_, ": ", args...));
  }

  template <class... Args>
  [[noreturn]] void unsupported(const Args&... args) const {
    throw Unsupported(str(source_, ": ", args...));
  }

  void refuse_other_formats(const HostTensor& file) const {
    std::array<char, 4> start;
    read_bytes(file, 0, std::as_writable_bytes(std::span(start)));
    const std::string_view magic(start.data(), start.size());
    if (magic == "GGUF")
      unsupported("is a GGUF file, which pagedcore.LLM opens; here a safetensors file or a model container is read");
    if (magic == "PK\3\4")
      unsupported(
          "is a zip archive, as PyTorch's checkpoints are; here a safetensors file or a model container is read");
  }

  DType dtype(const std::string& name, std::string_view text) const {
    for (const auto& [known, dtype] : type_names) {
      if (known == text) return dtype;
    }
    std::string known;
    for (const auto& entry : type_names) known += str(known.empty() ? "" : ", ", entry.first);
    unsupported("tensor '", name, "' has the element type '", text, "'; supported are ", known);
  }

  void set_shape(HostTensor& tensor, const std::string& name, std::span<const std::uint64_t> extents) const {
    if (extents.size() > tensor.shape.size()) {
      unsupported("tensor '", name, "' has ", extents.size(), " dimensions; at most ", tensor.shape.size(),
                  " are supported");
    }
    // No extent and no product may reach 2^63 bits of any element type, also where another extent is 0.
    constexpr std::uint64_t limit = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()) / 64;
    std::uint64_t product = 1;
    for (const std::uint64_t extent : extents) {
      if (extent > limit || product > limit / std::max<std::uint64_t>(extent, 1)) {
        corrupt("tensor '", name, "' has a shape that overflows (extent ", extent, ")");
      }
      product *= std::max<std::uint64_t>(extent, 1);
    }
    tensor.rank = static_cast<int>(extents.size());
    std::transform(extents.begin(), extents.end(), tensor.shape.begin(),
                   [](std::uint64_t extent) { return static_cast<std::int64_t>(extent); });
  }

  HostTensor tensor(const std::string& name, const Entry& entry, const HostTensor& data) const {
    if (!entry.dtype || !entry.shape || !entry.offsets) {
      corrupt("tensor '", name, "' lacks dtype, shape or data_offsets");
    }
    HostTensor result;
    result.dtype = dtype(name, *entry.dtype);
    set_shape(result, name, *entry.shape);
    if (entry.offsets->size() != 2) corrupt("tensor '", name, "' has ", entry.offsets->size(), " data_offsets, not 2");
    const std::uint64_t begin = (*entry.offsets)[0];
    const std::uint64_t end = (*entry.offsets)[1];
    if (begin > end || end > data.size_bytes()) {
      corrupt("tensor '", name, "' has the data_offsets [", begin, ", ", end, "] in ", data.size_bytes(),
              " bytes of data");
    }
    const std::size_t expected = bytes_of(result.dtype, result.count());
    if (end - begin != expected) {
      corrupt("tensor '", name, "' of type ", *entry.dtype, " and shape [", shape_text(result), "] takes ", expected,
              " bytes, but its data_offsets [", begin, ", ", end, "] span ", end - begin);
    }
    move_to(result, data, begin, expected);
    return result;
  }

  /// The specification allows neither overlaps nor holes nor bytes that belong to no tensor.
  void check_cover(const TensorMap& tensors, const HostTensor& data) const {
    std::vector<std::pair<std::size_t, const TensorMap::value_type*>> by_offset;
    by_offset.reserve(tensors.size());
    for (const auto& entry : tensors) {
      const HostTensor& t = entry.second;
      by_offset.emplace_back(data.source == nullptr ? static_cast<std::size_t>(t.data.data() - data.data.data())
                                                    : static_cast<std::size_t>(t.offset - data.offset),
                             &entry);
    }
    std::sort(by_offset.begin(), by_offset.end(), [](const auto& a, const auto& b) {
      return std::pair(a.first, a.second->second.size_bytes()) < std::pair(b.first, b.second->second.size_bytes());
    });
    std::size_t end = 0;
    for (const auto& [begin, entry] : by_offset) {
      if (begin < end) corrupt("tensor '", entry->first, "' begins at ", begin, ", inside the one that ends at ", end);
      if (begin > end) corrupt("bytes ", end, " to ", begin, " before tensor '", entry->first, "' belong to no tensor");
      end = begin + entry->second.size_bytes();
    }
    if (end != data.size_bytes()) corrupt("the tensors end at byte ", end, " of ", data.size_bytes(), " bytes of data");
  }

  std::vector<std::uint64_t> parse_shape(const std::string& name, std::string_view text) const {
    std::vector<std::uint64_t> extents;
    std::uint64_t extent = 0;
    bool digit_seen = false;
    for (const char c : text) {
      if (c == ',' && digit_seen) {
        extents.push_back(std::exchange(extent, 0));
        digit_seen = false;
      } else if (c >= '0' && c <= '9' && extent < std::numeric_limits<std::uint32_t>::max()) {
        extent = extent * 10 + static_cast<std::uint64_t>(c - '0');
        digit_seen = true;
      } else {
        digit_seen = false;
        break;
      }
    }
    if (!digit_seen) corrupt("tensor '", name, "' has the shape '", text, "' in the metadata");
    extents.push_back(extent);
    return extents;
  }

  /// Gives the tensors that a container keeps as raw bytes their true type and shape.
  void restore_block_formats(Safetensors& contents) const {
    for (const auto& [key, text] : contents.metadata) {
      if (std::string_view(key).starts_with(shape_prefix)) {
        const std::string name = key.substr(shape_prefix.size());
        if (!contents.metadata.contains(str(dtype_prefix, name))) corrupt("the metadata has '", key, "' but no dtype");
      }
      if (!std::string_view(key).starts_with(dtype_prefix)) continue;
      const std::string name = key.substr(dtype_prefix.size());
      const auto found = contents.tensors.find(name);
      const auto shape = contents.metadata.find(str(shape_prefix, name));
      if (found == contents.tensors.end()) corrupt("the metadata has '", key, "', but there is no such tensor");
      if (shape == contents.metadata.end()) corrupt("the metadata has '", key, "' but no shape");
      restore(found->second, name, text, shape->second);
    }
  }

 private:
  void restore(HostTensor& tensor, const std::string& name, const std::string& type, const std::string& shape) const {
    if (tensor.dtype != DType::u8 || tensor.rank != 1) {
      corrupt("tensor '", name, "' is ", type, " in the metadata, but not stored as bytes");
    }
    HostTensor restored;
    restored.dtype = block_format(name, type);
    set_shape(restored, name, parse_shape(name, shape));
    const std::uint32_t block = info(restored.dtype).block_elements;
    if (restored.cols() % block != 0) {
      corrupt("tensor '", name, "' has rows of ", restored.cols(), " elements, which blocks of ", block,
              " do not fill");
    }
    const std::size_t expected = bytes_of(restored.dtype, restored.count());
    if (expected != tensor.size_bytes()) {
      corrupt("tensor '", name, "' of type ", type, " and shape [", shape, "] takes ", expected, " bytes, but has ",
              tensor.size_bytes());
    }
    move_to(restored, tensor, 0, expected);
    tensor = restored;
  }

  DType block_format(const std::string& name, const std::string& type) const {
    try {
      const DType dtype = dtype_from_name(type);
      if (is_block_format(dtype)) return dtype;
    } catch (const Unsupported&) {
    }
    unsupported("tensor '", name, "' has the type '", type,
                "' in the metadata, which is no block format of this build");
  }

  std::string_view source_;
};

std::uint64_t read_u64(const HostTensor& file) {
  std::array<std::byte, length_bytes> bytes;
  read_bytes(file, 0, bytes);
  std::uint64_t value = 0;
  for (std::size_t i = 0; i < length_bytes; ++i) value |= std::to_integer<std::uint64_t>(bytes[i]) << (8 * i);
  return value;
}

}  // namespace

Safetensors read_safetensors(const HostTensor& file, std::string_view source) {
  const Checker check(source);
  const std::size_t size = file.size_bytes();
  if (size < length_bytes) check.corrupt("has ", size, " bytes: too few for a safetensors file");
  check.refuse_other_formats(file);
  const std::uint64_t header_size = read_u64(file);
  if (header_size > max_header_bytes || header_size > size - length_bytes) {
    check.corrupt("says that its header has ", header_size, " bytes, but the file has ", size, " and a header at most ",
                  max_header_bytes, ": not a safetensors file, or truncated");
  }
  std::string header(header_size, '\0');
  read_bytes(file, length_bytes, std::as_writable_bytes(std::span(header)));
  HostTensor data;
  move_to(data, file, length_bytes + header_size, size - length_bytes - header_size);

  Safetensors contents;
  JsonReader json(header, source);
  json.object([&](const std::string& name) {
    if (name == "__metadata__") {
      json.object([&](const std::string& key) { contents.metadata[key] = json.string(); });
    } else {
      contents.tensors[name] = check.tensor(name, read_entry(json), data);
    }
  });
  json.finish();
  check.check_cover(contents.tensors, data);
  const auto format = contents.metadata.find(std::string(format_key));
  if (format != contents.metadata.end() && format->second == container_format) check.restore_block_formats(contents);
  return contents;
}

std::string shape_text(const HostTensor& tensor) {
  std::string text;
  for (int i = 0; i < tensor.rank; ++i) text += str(i == 0 ? "" : ",", tensor.shape[static_cast<std::size_t>(i)]);
  return text;
}

ContainerLayout lay_out_container(const TensorMap& tensors, Metadata metadata) {
  std::vector<const TensorMap::value_type*> entries;
  for (const auto& entry : tensors) {
    const auto& [name, tensor] = entry;
    if (name == "__metadata__") throw InvalidArgument("a tensor cannot be named '__metadata__' in a container");
    if (bytes_of(tensor.dtype, tensor.count()) != tensor.size_bytes()) {
      throw InvalidArgument(str("tensor '", name, "' of type ", info(tensor.dtype).name, " and shape [",
                                shape_text(tensor), "] takes ", bytes_of(tensor.dtype, tensor.count()),
                                " bytes, but its data has ", tensor.size_bytes()));
    }
    if (is_block_format(tensor.dtype)) {
      metadata[str(dtype_prefix, name)] = info(tensor.dtype).name;
      metadata[str(shape_prefix, name)] = shape_text(tensor);
    }
    entries.push_back(&entry);
  }
  const auto alignment = [](const TensorMap::value_type* entry) {
    const DTypeInfo& type = info(entry->second.dtype);
    return type.block_elements > 1 ? 1u : type.block_bytes;
  };
  std::stable_sort(entries.begin(), entries.end(),
                   [&](const auto* a, const auto* b) { return alignment(a) > alignment(b); });

  std::string json = "{\"__metadata__\":{";
  const char* separator = "";
  for (const auto& [key, text] : metadata) {
    json += str(std::exchange(separator, ","), json_quote(key), ":", json_quote(text));
  }
  json += "}";
  ContainerLayout layout;
  std::size_t at = 0;
  for (const auto* entry : entries) {
    const auto& [name, tensor] = *entry;
    const bool raw = is_block_format(tensor.dtype);
    const DType stored = raw ? DType::u8 : tensor.dtype;
    const auto* type =
        std::find_if(type_names.begin(), type_names.end(), [stored](const auto& t) { return t.second == stored; });
    const std::string shape = raw ? str(tensor.size_bytes()) : shape_text(tensor);
    json += str(",", json_quote(name), ":{\"dtype\":\"", type->first, "\",\"shape\":[", shape, "],\"data_offsets\":[",
                at, ",", at + tensor.size_bytes(), "]}");
    at += tensor.size_bytes();
    layout.in_order.push_back(&tensor);
  }
  json += "}";
  while ((length_bytes + json.size()) % data_alignment != 0) json += ' ';
  if (json.size() > max_header_bytes) {
    throw InvalidArgument(str("the header takes ", json.size(), " bytes; a container's may take ", max_header_bytes));
  }
  for (std::size_t i = 0; i < length_bytes; ++i) {
    layout.header.push_back(static_cast<char>((json.size() >> (8 * i)) & 0xff));
  }
  layout.header += json;
  return layout;
}

}  // namespace pagedcore::io
