// What the KV of an engine depends on besides tokens, salt and adapter: two engines whose identities are equal compute
// the same bytes for the same tokens.
#pragma once

#include <map>
#include <mutex>
#include <string>
#include <string_view>

#include "pagedcore/backend.hpp"
#include "pagedcore/engine.hpp"
#include "pagedcore/model.hpp"
#include "store/block_record.hpp"

namespace pagedcore {

/// Hands out the tensors of another source, and sums up each that is read. Thread-safe as that source is.
class HashedWeights final : public WeightSource {
 public:
  explicit HashedWeights(const WeightSource& source) : source_(source) {}
  bool has(std::string_view name) const override { return source_.has(name); }
  HostTensor get(std::string_view name) const override;
  std::optional<DType> type_of(std::string_view name) const override { return source_.type_of(name); }
  /// Of all that was read, whatever the order.
  std::string digest() const;

 private:
  const WeightSource& source_;
  mutable std::mutex mutex_;
  mutable std::map<std::string, std::string, std::less<>> tensors_;
};

/// `weights`: HashedWeights::digest(). `backend`: by its description, of which the number of threads is left out.
store::Identity kv_identity(const ModelDescription& model, std::string_view weights, const Backend& backend,
                            const KvStorage& kv);

/// Whether the options ask for something that needs an identity.
inline bool moves_prefixes(const EngineConfig& config) noexcept {
  return config.store.kv_transfer || !config.store.kv_store.empty();
}

}  // namespace pagedcore
