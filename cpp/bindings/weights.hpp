// Weights as Python gives them.
#pragma once

#include <deque>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <string_view>

#include "bindings/gil.hpp"
#include "bindings/host_tensors.hpp"
#include "pagedcore/model.hpp"

namespace pagedcore::bindings {

/// A WeightMap that owns what its tensors point into.
/// Buffers are never dropped before the whole map is, so a copy of `map` stays valid, without the GIL, for as long as
/// its KeptWeights is referenced.
struct KeptWeights {
  WeightMap map;
  std::deque<TensorBytes> buffers;
};

/// Tells a Python function, before each tensor, how many were read before it. Ranks read the same ones, on threads of
/// their own: each counts once.
class ToldWeights final : public WeightSource {
 public:
  ToldWeights(const WeightSource& source, const nb::object& told) : source_(source), told_(told) {}
  bool has(std::string_view name) const override { return source_.has(name); }
  HostTensor get(std::string_view name) const override {
    const HostTensor tensor = source_.get(name);
    std::size_t done = 0;
    {
      const std::lock_guard lock(mutex_);
      if (!seen_.emplace(name).second) return tensor;
      done = seen_.size() - 1;
    }
    tell(told_, done);
    return tensor;
  }
  std::optional<DType> type_of(std::string_view name) const override { return source_.type_of(name); }

 private:
  const WeightSource& source_;
  const nb::object& told_;
  mutable std::mutex mutex_;
  mutable std::set<std::string, std::less<>> seen_;
};

}  // namespace pagedcore::bindings
