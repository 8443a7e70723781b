// The names of registered prefixes: which one a request means, and whose it is.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "pagedcore/engine.hpp"

namespace pagedcore {

/// A prefix belongs to the salt that it was registered under. Under any other it is unknown, in errors too, unless it
/// is shared: then it has its name where no own one has it. Not thread-safe.
class PrefixNames {
 public:
  struct Prefix {
    std::uint64_t salt = 0;
    bool shared = false;
    std::vector<TokenId> tokens;
    PrefixId id{};
  };

  /// Gives it an id. Throws InvalidArgument for a name that is taken.
  PrefixId add(const std::string& name, Prefix prefix);
  /// The one that a request names. Throws InvalidArgument for one that is unknown under its salt, and for a prompt that
  /// does not begin with it.
  PrefixId named_by(const EngineRequest& request) const;
  /// The one that this salt may release. Throws InvalidArgument where there is none.
  PrefixId owned(const std::string& name, std::uint64_t salt) const;
  /// Unknown ids are ignored.
  void forget(PrefixId id) noexcept;

 private:
  const Prefix* find(const std::string& name, std::uint64_t salt) const;
  [[noreturn]] void refuse_unknown(const std::string& name, std::uint64_t salt) const;

  std::map<std::pair<std::uint64_t, std::string>, Prefix> own_;  // by salt and name
  std::map<std::string, Prefix> shared_;
  std::uint64_t last_id_ = 0;
};

}  // namespace pagedcore
