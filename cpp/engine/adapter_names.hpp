// The names of adapters: which one a request means, in which slot of the model it is, and who uses it.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/sha256.hpp"
#include "pagedcore/adapter.hpp"

namespace pagedcore {

/// An adapter that is loaded. Requests hold it as long as they need it.
struct Adapter {
  std::string name;
  std::int32_t slot = 0;
  Digest digest{};  // of its content, not its name

  /// What stands for a salt at the root of what is computed with it: a hash of both. What has equal contents is shared,
  /// and nothing else.
  std::uint64_t root(std::uint64_t salt) const noexcept;
};

/// The SHA-256 of an adapter's matrices: names, shapes, scales, and elements as f32. Throws Io.
Digest digest_of(const AdapterWeights& weights);

/// Thread-safe.
class AdapterNames {
 public:
  explicit AdapterNames(std::uint32_t slots) : slots_(slots) {}

  /// Throws InvalidArgument for one that is not loaded.
  std::shared_ptr<const Adapter> find(const std::string& name) const;
  std::vector<std::string> names() const;
  /// Takes a slot for a new one, which has no name until publish(). Throws InvalidArgument for an empty name, one in
  /// use, and where no slot is free.
  std::shared_ptr<const Adapter> reserve(const std::string& name, const Digest& digest);
  void publish(const std::shared_ptr<const Adapter>& adapter);
  /// Gives its slot back.
  void cancel(const std::shared_ptr<const Adapter>& adapter) noexcept;
  /// Requests cannot name it any more. Throws InvalidArgument for one that is not loaded, and, unless it may `drain`,
  /// for one that requests use: then nothing has changed.
  void remove(const std::string& name, bool drain);
  /// Slots of those that have no name any more and that nobody uses; each is told once, and then free.
  std::vector<std::int32_t> collect();

 private:
  struct Entry {
    std::shared_ptr<const Adapter> adapter;
    enum class State : std::uint8_t { loading, named, leaving } state;
  };
  [[noreturn]] void refuse_unknown(const std::string& name) const;

  const std::uint32_t slots_;
  mutable std::mutex mutex_;
  std::vector<Entry> entries_;
};

}  // namespace pagedcore
