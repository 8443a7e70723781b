// The names of registered prefixes: which one a request means, and whose it is.
#pragma once

#include <compare>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "pagedcore/engine.hpp"

namespace pagedcore {

/// Whose KV it is: a salt's, computed with an adapter (the hash of its content; empty: none).
struct PrefixScope {
  std::uint64_t salt = 0;
  std::string adapter = {};
  auto operator<=>(const PrefixScope&) const = default;
};

/// A prefix belongs to the adapter that it was computed with, and to the salt that it was registered under. Under any
/// other it is unknown, in errors too, unless it is shared: then it has its name where no own one has it. Not
/// thread-safe.
class PrefixNames {
 public:
  struct Prefix {
    PrefixScope scope = {};
    std::shared_ptr<const void> adapter = {};  // that the scope names, which is in use as long as the prefix is there
    bool shared = false;
    std::vector<TokenId> tokens;
    PrefixId id{};
  };

  /// Gives it an id. Throws InvalidArgument for a name that is taken.
  PrefixId add(const std::string& name, Prefix prefix);
  /// The one that a request names. Throws InvalidArgument for one that is unknown under its salt, and for a prompt that
  /// does not begin with it.
  PrefixId named_by(const EngineRequest& request, const PrefixScope& scope) const;
  /// The one that this salt may release. Throws InvalidArgument where there is none.
  PrefixId owned(const std::string& name, const PrefixScope& scope) const;
  /// Unknown ids are ignored.
  void forget(PrefixId id) noexcept;

 private:
  const Prefix* find(const std::string& name, const PrefixScope& scope) const;
  [[noreturn]] void refuse_unknown(const std::string& name, const PrefixScope& scope) const;

  std::map<std::pair<PrefixScope, std::string>, Prefix> own_;
  std::map<std::pair<std::string, std::string>, Prefix> shared_;  // by adapter and name
  std::uint64_t last_id_ = 0;
};

}  // namespace pagedcore
