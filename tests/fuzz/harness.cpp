#include "harness.hpp"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <iterator>
#include <string>
#include <vector>

#include "io/json.hpp"
#include "io/safetensors.hpp"
#include "pagedcore/error.hpp"
#include "pagedcore/model.hpp"

namespace pagedcore::fuzz {
namespace {

std::string_view as_text(std::span<const std::byte> input) {
  return {reinterpret_cast<const char*>(input.data()), input.size()};
}

volatile std::uint8_t sink;

// Sanitizers see a view outside its memory only when it is read.
void touch(const HostTensor& tensor) {
  std::uint8_t sum = 0;
  for (const std::byte byte : tensor.data) sum = static_cast<std::uint8_t>(sum + std::to_integer<std::uint8_t>(byte));
  const std::int64_t block = info(tensor.dtype).block_elements;
  if (tensor.count() >= block) {
    std::vector<float> out(static_cast<std::size_t>(block));
    to_f32(tensor, 0, out);
    to_f32(tensor, tensor.count() - block, out);
    sum = static_cast<std::uint8_t>(sum + static_cast<std::uint8_t>(out[0] > 0));
  }
  sink = sum;
}

// The reader does not look ahead, so the input's first byte of each value says what it is taken for.
void read_value(io::JsonReader& reader, std::string_view kinds, std::size_t& next, int depth) {
  const char kind = next < kinds.size() ? kinds[next++] : '"';
  if (depth < 50 && kind == '{') {
    reader.object([&](const std::string&) { read_value(reader, kinds, next, depth + 1); });
  } else if (depth < 50 && kind == '[') {
    reader.array([&] { read_value(reader, kinds, next, depth + 1); });
  } else if (kind >= '0' && kind <= '9') {
    reader.unsigned_integer();
  } else {
    const std::string text = reader.string();
    if (text != io::JsonReader(io::json_quote(text), "quoted").string()) std::abort();
  }
}

// The kinds of the values of well-formed JSON, in order: what follows '{', '[', ',' or ':' outside strings.
std::string value_kinds(std::string_view text) {
  std::string kinds;
  std::string open;
  bool in_string = false;
  bool value_next = true;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
      continue;
    }
    if (c == ' ' || c == '\t' || c == '\n' || c == '\r') continue;
    if (value_next) kinds += c;
    value_next = false;
    if (c == '"') in_string = true;
    if (c == '{' || c == '[') open += c;
    if ((c == '}' || c == ']') && !open.empty()) open.pop_back();
    value_next = c == ':' || c == '[' || (c == ',' && !open.empty() && open.back() == '[');
    if (c == '[' && i + 1 < text.size() && text[i + 1] == ']') value_next = false;
  }
  return kinds;
}

}  // namespace

bool safetensors(std::span<const std::byte> input) {
  try {
    const io::Safetensors contents = io::read_safetensors({DType::u8, {std::ssize(input)}, 1, input}, "input");
    for (const auto& entry : contents.tensors) touch(entry.second);
    return true;
  } catch (const Error&) {
    return false;
  }
}

bool json(std::span<const std::byte> input) {
  try {
    io::JsonReader reader(as_text(input), "input");
    std::size_t next = 0;
    read_value(reader, value_kinds(as_text(input)), next, 0);
    reader.finish();
    return true;
  } catch (const Error&) {
    return false;
  }
}

bool description(std::span<const std::byte> input) {
  std::map<std::string, std::string> fields;
  for (std::string_view rest = as_text(input); !rest.empty();) {
    const std::string_view line = rest.substr(0, rest.find('\n'));
    const std::size_t equals = std::min(line.find('='), line.size());
    fields[std::string(line.substr(0, equals))] = line.substr(std::min(equals + 1, line.size()));
    rest.remove_prefix(std::min(line.size() + 1, rest.size()));
  }
  try {
    const auto text = ModelDescription::from_text(fields).to_text();
    if (ModelDescription::from_text(text).to_text() != text) std::abort();
    return true;
  } catch (const Error&) {
    return false;
  }
}

}  // namespace pagedcore::fuzz
