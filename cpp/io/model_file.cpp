#include "base/field_text.hpp"
#include "base/text.hpp"
#include "io/safetensors.hpp"
#include "pagedcore/error.hpp"
#include "pagedcore/input_file.hpp"
#include "pagedcore/model.hpp"

namespace pagedcore {

struct ModelFile::Impl {
  Impl(const std::string& file_path, bool mmap)
      : path(file_path), file(file_path, mmap), contents(io::read_safetensors(file.part(0, file.size()), path)) {}

  std::string path;
  InputFile file;
  io::Safetensors contents;
};

ModelFile::ModelFile(const std::string& path, bool mmap) : impl_(std::make_unique<Impl>(path, mmap)) {}
ModelFile::~ModelFile() = default;

bool ModelFile::has(std::string_view name) const { return impl_->contents.tensors.contains(name); }

HostTensor ModelFile::get(std::string_view name) const {
  const auto found = impl_->contents.tensors.find(name);
  if (found == impl_->contents.tensors.end()) throw Corrupt(str(impl_->path, ": has no tensor '", name, "'"));
  return found->second;
}

std::vector<std::string> ModelFile::names() const {
  std::vector<std::string> names;
  names.reserve(impl_->contents.tensors.size());
  for (const auto& entry : impl_->contents.tensors) names.push_back(entry.first);
  return names;
}

const std::map<std::string, std::string>& ModelFile::metadata() const noexcept { return impl_->contents.metadata; }

ModelDescription ModelFile::description() const {
  std::map<std::string, std::string> text;
  for (const auto& [key, value] : metadata()) {
    if (key.starts_with(io::description_prefix)) text[key.substr(io::description_prefix.size())] = value;
  }
  if (text.empty()) {
    throw Corrupt(str(impl_->path, ": carries no model description: a plain safetensors file, not a model container"));
  }
  try {
    return ModelDescription::from_text(text);
  } catch (const Error& error) {
    throw Corrupt(str(impl_->path, ": the model description is invalid: ", error.what()));
  }
}

std::vector<std::int32_t> ModelFile::eos_token_ids() const {
  std::vector<std::int32_t> ids;
  const auto found = metadata().find(kEosTokenIds);
  if (found == metadata().end()) return ids;
  try {
    from_text(kEosTokenIds, found->second, ids);
  } catch (const Error& error) {
    throw Corrupt(str(impl_->path, ": ", error.what()));
  }
  return ids;
}

}  // namespace pagedcore
