#include "base/text.hpp"
#include "pagedcore/error.hpp"
#include "pagedcore/model.hpp"

namespace pagedcore {

WeightSource::~WeightSource() = default;
std::optional<DType> WeightSource::type_of(std::string_view name) const {
  return has(name) ? std::optional(get(name).dtype) : std::nullopt;
}

void WeightMap::add(std::string name, const HostTensor& tensor) {
  const auto [entry, added] = tensors_.emplace(std::move(name), tensor);
  if (!added) throw InvalidArgument(str("tensor ", entry->first, " was added twice"));
}

bool WeightMap::has(std::string_view name) const { return tensors_.contains(name); }

HostTensor WeightMap::get(std::string_view name) const {
  const auto found = tensors_.find(name);
  if (found == tensors_.end()) throw Corrupt(str("tensor ", name, " is missing"));
  return found->second;
}

}  // namespace pagedcore
